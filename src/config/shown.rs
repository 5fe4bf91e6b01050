//! The table of settings, for people.

use std::fmt::Write as _;

use super::problem::environment_name;
use super::{Group, SETTINGS, Setting};

/// The table of settings in Markdown, as it stands in the README.
pub fn markdown_table() -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let _ = write!(out, "\n**{}**\n\n", group.title());
        out.push_str("| setting | default | what | values | changes |\n|---|---|---|---|---|\n");
        for setting in SETTINGS.iter().filter(|s| s.group == *group) {
            let default = match setting.kind.default_text() {
                text if text.is_empty() => "none".to_owned(),
                text => format!("`{text}`"),
            };
            let _ = writeln!(
                out,
                "| `{}` | {default} | {} | {} | {} |",
                setting.name,
                setting.help,
                setting.kind.domain(),
                setting.change().text()
            );
        }
    }
    out
}

impl Setting {
    /// Its environment variable.
    pub fn environment_variable(&self) -> String {
        environment_name(self.name)
    }
}
