use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What an experiment asks of its report beyond what every run gets; `[report]` in its file.
///
/// ```
/// use sraft_report::results::{Published, Wish, WishedFigure};
/// let wish: Wish = serde_json::from_str(
///     r#"{ "figure": "announced", "published": "raft-fig16", "panels": [["150-155"], ["12-24"]] }"#,
/// )
/// .unwrap();
/// assert_eq!(wish.figure, Some(WishedFigure::Announced));
/// assert_eq!(wish.published, Some(Published::RaftFig16));
/// assert!(wish.check(["150-155", "12-24"]).is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The time that the experiment is about; `leaderless` if it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figure: Option<WishedFigure>,
    /// Published results that are to stand beside the variants of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Names of the variants in each panel of the figure; one panel with all variants if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub panels: Vec<Vec<String>>,
}

/// A time that an experiment may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WishedFigure {
    /// From the fault to the majority of the new leader.
    Leaderless,
    /// What a client felt; needs a probe.
    Outage,
    /// From the fault until every spared node knows the new leader.
    Announced,
}

/// Published results that this crate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Published {
    /// The election benchmark of Ongaro's dissertation on Raft, also figure 16 of the Raft paper.
    RaftFig16,
}

/// Why a wish cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// A panel names a variant that the experiment does not have.
    #[error(
        "report.panels: panel {panel} names the variant `{variant}`, which the experiment does \
         not have; it has {known}"
    )]
    UnknownVariant {
        /// The panel, from 1.
        panel: usize,
        /// The name.
        variant: String,
        /// The variants that there are, comma between them.
        known: String,
    },
    /// A panel shows nothing.
    #[error("report.panels: panel {panel} is empty; name its variants or leave it out")]
    EmptyPanel {
        /// The panel, from 1.
        panel: usize,
    },
    /// A panel names a variant twice.
    #[error("report.panels: panel {panel} names the variant `{variant}` twice")]
    Twice {
        /// The panel, from 1.
        panel: usize,
        /// The name.
        variant: String,
    },
    /// Panels or published results of a figure that has none.
    #[error(
        "report.{key} belongs to the figure of announced times; add figure = \"announced\", or \
         leave {key} out"
    )]
    NotAnnounced {
        /// `panels` or `published`.
        key: &'static str,
    },
}

impl Wish {
    /// Whether the experiment with these variants can fulfil it.
    ///
    /// # Errors
    /// [`WishError`].
    pub fn check<'a>(&self, variants: impl IntoIterator<Item = &'a str>) -> Result<(), WishError> {
        let known: Vec<&str> = variants.into_iter().collect();
        if self.figure != Some(WishedFigure::Announced) {
            if !self.panels.is_empty() {
                return Err(WishError::NotAnnounced { key: "panels" });
            }
            if self.published.is_some() {
                return Err(WishError::NotAnnounced { key: "published" });
            }
        }
        for (panel, names) in (1..).zip(&self.panels) {
            if names.is_empty() {
                return Err(WishError::EmptyPanel { panel });
            }
            let mut seen = BTreeSet::new();
            for variant in names {
                if !known.contains(&variant.as_str()) {
                    let (variant, known) = (variant.clone(), known.join(", "));
                    return Err(WishError::UnknownVariant { panel, variant, known });
                }
                if !seen.insert(variant) {
                    return Err(WishError::Twice { panel, variant: variant.clone() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Wish, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_words_are_refused_and_named() {
        for (text, expected) in [
            (
                r#"{ "figure": "latency" }"#,
                "unknown variant `latency`, expected one of `leaderless`, `outage`, `announced`",
            ),
            (r#"{ "published": "fig-17" }"#, "unknown variant `fig-17`, expected `raft-fig16`"),
            (r#"{ "panel": [] }"#, "unknown field `panel`, expected one of `figure`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(parse("{}").unwrap(), Wish::default());
    }

    #[test]
    fn wishes_that_cannot_be_fulfilled_are_refused_with_the_remedy() {
        for (text, expected) in [
            (
                r#"{ "figure": "announced", "panels": [["a"], ["a", "c"]] }"#,
                "panel 2 names the variant `c`, which the experiment does not have; it has a, b",
            ),
            (r#"{ "figure": "announced", "panels": [[]] }"#, "panel 1 is empty"),
            (r#"{ "figure": "announced", "panels": [["a", "a"]] }"#, "names the variant `a` twice"),
            (r#"{ "panels": [["a"]] }"#, "report.panels belongs to the figure of announced times"),
            (r#"{ "published": "raft-fig16" }"#, "report.published belongs to"),
        ] {
            let error = parse(text).unwrap().check(["a", "b"]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
