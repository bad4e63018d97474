//! What the user's `~/.ssh/config` says of a host.
//!
//! A part of ssh_config(5) that covers how people name their hosts: `Host` with patterns,
//! `Include`, and the keywords of [`Settings`]. As there, the first value counts, except that key
//! files add up. `Match` blocks other than `Match all` are passed over. A proxy is refused rather
//! than ignored: the connection would go somewhere else than `ssh` takes it.

use std::path::{Path, PathBuf};

use super::error::SshErrorKind;

/// How deep files may include one another.
const DEEPEST: usize = 8;

/// What is said of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where to connect to.
    pub(crate) host_name: Option<String>,
    /// User to log in as.
    pub(crate) user: Option<String>,
    /// Port of the SSH server.
    pub(crate) port: Option<u16>,
    /// Private keys to try, in order.
    pub(crate) identity_files: Vec<PathBuf>,
    /// Whether the agent's other keys are left alone.
    pub(crate) identities_only: Option<bool>,
    /// Files with host keys; `none` is an empty list.
    pub(crate) known_hosts: Option<Vec<PathBuf>>,
    /// Name that the host's key is recorded under.
    pub(crate) host_key_alias: Option<String>,
}

/// Reads what `path` says of `host`, as far as it exists.
pub(crate) fn read(path: &Path, home: &Path, host: &str) -> Result<Settings, SshErrorKind> {
    let mut settings = Settings::default();
    let mut reader = Reader { home, host, settings: &mut settings };
    reader.file(path, 0)?;
    Ok(settings)
}

struct Reader<'a> {
    home: &'a Path,
    host: &'a str,
    settings: &'a mut Settings,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), SshErrorKind> {
        let refuse = |line, message: String| {
            Err(SshErrorKind::Config { path: path.to_owned(), line, message })
        };
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return refuse(None, format!("cannot be read: {error}")),
        };
        let mut applies = true;
        for (number, line) in text.lines().enumerate() {
            let number = Some(number + 1);
            let Some((keyword, words)) = words(line) else { continue };
            let Some(first) = words.first() else {
                return refuse(number, format!("`{keyword}` has no value; give it one"));
            };
            match keyword.as_str() {
                "host" => applies = matches_any(&words, self.host),
                "match" => applies = first.eq_ignore_ascii_case("all"),
                _ if !applies => {}
                "include" => {
                    if depth == DEEPEST {
                        return refuse(number, "files include one another too deeply".to_owned());
                    }
                    let files: Vec<PathBuf> =
                        words.iter().flat_map(|word| self.included(word)).collect();
                    for included in files {
                        self.file(&included, depth + 1)?;
                    }
                }
                "port" => {
                    let Some(port) = first.parse::<u16>().ok().filter(|port| *port > 0) else {
                        return refuse(number, format!("`{first}` is no port; write 1 to 65535"));
                    };
                    self.settings.port.get_or_insert(port);
                }
                "proxyjump" | "proxycommand" if !first.eq_ignore_ascii_case("none") => {
                    let message = format!(
                        "`{keyword}` is not offered for {}: give ssh = an address that can be \
                         reached directly, or run sraft on the jump host",
                        self.host
                    );
                    return refuse(number, message);
                }
                other => self.take(other, first, &words),
            }
        }
        Ok(())
    }

    fn take(&mut self, keyword: &str, first: &str, words: &[String]) {
        match keyword {
            "hostname" => {
                let name = first.replace("%h", self.host).replace("%%", "%");
                self.settings.host_name.get_or_insert(name);
            }
            "user" => {
                self.settings.user.get_or_insert(first.to_owned());
            }
            "identityfile" if first.eq_ignore_ascii_case("none") => {}
            "identityfile" => {
                let path = self.path(first);
                self.settings.identity_files.push(path);
            }
            "identitiesonly" => {
                self.settings.identities_only.get_or_insert(first.eq_ignore_ascii_case("yes"));
            }
            "userknownhostsfile" => {
                let none = |word: &&String| word.eq_ignore_ascii_case("none");
                let files = words.iter().filter(|word| !none(word)).map(|word| self.path(word));
                let files = files.collect();
                self.settings.known_hosts.get_or_insert(files);
            }
            "hostkeyalias" => {
                self.settings.host_key_alias.get_or_insert(first.to_owned());
            }
            // How to treat a terminal, what to forward: no business of ours.
            _ => {}
        }
    }

    /// A path in which `~`, `%d` and `%h` stand for something.
    fn path(&self, text: &str) -> PathBuf {
        let home = self.home.to_string_lossy();
        let text = match text.strip_prefix("~/") {
            Some(below) => format!("{home}/{below}"),
            None => text.to_owned(),
        };
        let host = self.settings.host_name.as_deref().unwrap_or(self.host);
        PathBuf::from(text.replace("%d", &home).replace("%h", host).replace("%%", "%"))
    }

    /// Files that an `Include` means: those without a path are beside the user's file, and the
    /// last part may be a pattern.
    fn included(&self, word: &str) -> Vec<PathBuf> {
        let path = self.home.join(".ssh").join(self.path(word));
        let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match (path.parent(), pattern) {
            (Some(folder), Some(pattern)) if pattern.contains(['*', '?']) => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let mut files: Vec<PathBuf> = entries
                    .filter(|entry| matches(&pattern, &entry.file_name().to_string_lossy()))
                    .map(|entry| entry.path())
                    .collect();
                files.sort();
                files
            }
            _ => vec![path],
        }
    }
}

/// The keyword of a line, in small letters, and its values. Nothing for comments.
fn words(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in rest.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            '#' if !quoted && !begun => break,
            c if c.is_whitespace() && !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                begun = true;
                word.push(c);
            }
        }
    }
    if begun {
        words.push(word);
    }
    Some((keyword.to_ascii_lowercase(), words))
}

/// Whether a list of patterns means `name`: one has to, and none that begins with `!` may.
pub(super) fn matches_any(patterns: &[impl AsRef<str>], name: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.as_ref().strip_prefix('!') {
            Some(pattern) if matches(pattern, name) => return false,
            Some(_) => {}
            None => found |= matches(pattern.as_ref(), name),
        }
    }
    found
}

/// Whether `pattern` (`*` any characters, `?` one) means `name`. Names of hosts have no case.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.to_ascii_lowercase().chars().collect();
    let name: Vec<char> = name.to_ascii_lowercase().chars().collect();
    // `reached[i]`: the pattern so far can mean the first i characters.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for p in pattern {
        if p == '*' {
            for i in 1..=name.len() {
                reached[i] |= reached[i - 1];
            }
        } else {
            for i in (0..name.len()).rev() {
                reached[i + 1] = reached[i] && (p == '?' || p == name[i]);
            }
            reached[0] = false;
        }
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, host: &str) -> Result<Settings, SshErrorKind> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        let path = home.path().join(".ssh/config");
        std::fs::write(&path, text).unwrap();
        std::fs::write(home.path().join(".ssh/more.conf"), "Host more\n User included\n").unwrap();
        let mut settings = read(&path, home.path(), host)?;
        let relative = |path: &PathBuf| path.strip_prefix(home.path()).unwrap_or(path).to_owned();
        settings.identity_files = settings.identity_files.iter().map(relative).collect();
        Ok(settings)
    }

    const TEXT: &str = r#"
# lab
Include *.conf
Host lab-* !lab-9
    HostName %h.example.org
    User = "ec2 user"
    Port 2222
    IdentityFile ~/.ssh/lab key # no comment within a line's words
    IdentitiesOnly yes
    UserKnownHostsFile none
Match user bob
    Port 1
Host *
    User other
    Port 22
    IdentityFile ~/.ssh/id_any
"#;

    #[test]
    fn the_first_value_counts_and_key_files_add_up() {
        let lab = of(TEXT, "LAB-1").unwrap();
        assert_eq!(lab.host_name.as_deref(), Some("LAB-1.example.org"));
        assert_eq!(lab.user.as_deref(), Some("ec2 user"));
        assert_eq!(lab.port, Some(2222));
        assert_eq!(lab.identity_files, [".ssh/lab", ".ssh/id_any"].map(PathBuf::from));
        assert_eq!(lab.identities_only, Some(true));
        assert_eq!(lab.known_hosts, Some(vec![]));
    }

    #[test]
    fn negated_patterns_exclude_and_files_are_included() {
        assert_eq!(of(TEXT, "lab-9").unwrap().user.as_deref(), Some("other"));
        assert_eq!(of(TEXT, "more").unwrap().user.as_deref(), Some("included"));
        assert_eq!(of("", "x").unwrap(), Settings::default());
    }

    #[test]
    fn a_proxy_is_refused_with_its_line() {
        let error = of("Host a\nProxyJump b\n", "a").unwrap_err().to_string();
        assert!(error.contains("config, line 2: `proxyjump` is not offered for a"), "{error}");
        assert_eq!(of("Host a\nProxyJump b\n", "c").unwrap(), Settings::default());
        let error = of("Port 99999\n", "a").unwrap_err().to_string();
        assert!(error.contains("line 1: `99999` is no port"), "{error}");
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("10.0.?.1", "10.0.7.1", true),
            ("10.0.?.1", "10.0.17.1", false),
            ("", "a", false),
            ("**b", "aab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
