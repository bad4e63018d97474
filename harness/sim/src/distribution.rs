use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use sraft_core::Span;

/// A duration that differs from one time to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Always the same.
    Constant(Span),
    /// Every value of the range is as likely as any other.
    Uniform(Uniform),
    /// Its logarithm is normally distributed: a sharp lower end and a long tail.
    LogNormal(LogNormal),
    /// One of these, each as likely as any other: a measured distribution.
    Samples(Vec<Span>),
}

/// The ends of a uniform distribution, both included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uniform {
    /// The shortest.
    pub min: Span,
    /// The longest.
    pub max: Span,
}

/// The parameters of a log-normal distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogNormal {
    /// Half of the values are below it.
    pub median: Span,
    /// Standard deviation of the natural logarithm.
    pub sigma: f64,
}

/// Why a distribution is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DistributionError {
    /// A range whose ends are the wrong way round.
    #[error("uniform from {min} to {max} runs backwards; give the shorter duration as min")]
    Backwards {
        /// What was given as the shortest.
        min: Span,
        /// What was given as the longest.
        max: Span,
    },
    /// The spread of a log-normal distribution makes no sense.
    #[error("log-normal sigma = {0} is out of range; it must be from 0 to 5")]
    Sigma(f64),
    /// There is nothing to draw from.
    #[error("samples is empty; list at least one duration")]
    NoSamples,
    /// No network and no disk of a cluster is as slow as that.
    #[error("{0} is longer than the ten minutes that the simulator allows")]
    TooLong(Span),
}

/// The longest duration that a distribution may name; ten minutes.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(600);

impl Distribution {
    /// Always this many microseconds.
    pub fn constant_us(micros: u64) -> Distribution {
        Distribution::Constant(span_us(micros))
    }

    /// Uniform between two numbers of microseconds.
    pub fn uniform_us(min: u64, max: u64) -> Distribution {
        Distribution::Uniform(Uniform { min: span_us(min), max: span_us(max) })
    }

    pub(crate) fn sampler(&self) -> Result<Sampler, DistributionError> {
        let nanos = |span: &Span| match span.0 {
            long if long > LONGEST => Err(DistributionError::TooLong(*span)),
            fits => Ok(fits.as_nanos() as u64),
        };
        Ok(match self {
            Distribution::Constant(span) => Sampler::Uniform(nanos(span)?, nanos(span)?),
            Distribution::Uniform(Uniform { min, max }) if min.0 > max.0 => {
                return Err(DistributionError::Backwards { min: *min, max: *max });
            }
            Distribution::Uniform(range) => {
                Sampler::Uniform(nanos(&range.min)?, nanos(&range.max)?)
            }
            Distribution::LogNormal(LogNormal { median, sigma }) => {
                if !(0.0..=5.0).contains(sigma) {
                    return Err(DistributionError::Sigma(*sigma));
                }
                Sampler::LogNormal { median: nanos(median)? as f64, sigma: *sigma }
            }
            Distribution::Samples(spans) if spans.is_empty() => {
                return Err(DistributionError::NoSamples);
            }
            Distribution::Samples(spans) => {
                Sampler::Samples(spans.iter().map(nanos).collect::<Result<_, _>>()?)
            }
        })
    }
}

fn span_us(micros: u64) -> Span {
    Span(std::time::Duration::from_micros(micros))
}

/// A validated distribution, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) enum Sampler {
    Uniform(u64, u64),
    LogNormal { median: f64, sigma: f64 },
    Samples(Vec<u64>),
}

impl Sampler {
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> u64 {
        match self {
            Sampler::Uniform(min, max) if min == max => *min,
            Sampler::Uniform(min, max) => rng.random_range(*min..=*max),
            Sampler::LogNormal { median, sigma } => {
                // Box-Muller; libm because the platform's own logarithm may differ in the last
                // bit, and with it the whole run.
                let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.random::<f64>()));
                let normal = radius * libm::cos(std::f64::consts::TAU * rng.random::<f64>());
                let nanos = median * libm::exp(sigma * normal);
                nanos.min(LONGEST.as_nanos() as f64) as u64
            }
            Sampler::Samples(samples) => samples[rng.random_range(0..samples.len())],
        }
    }
}
