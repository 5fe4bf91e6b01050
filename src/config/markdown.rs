//! The settings for people who read the README.

use std::fmt::Write as _;

use super::{Group, SETTINGS};

/// The table of settings in Markdown, as it stands in the README.
pub fn markdown_table() -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let _ = write!(out, "\n**{}**\n\n", group.title());
        out.push_str("| setting | default | what | values |\n|---|---|---|---|\n");
        for setting in SETTINGS.iter().filter(|s| s.group == *group) {
            let default = match setting.kind.default_text() {
                text if text.is_empty() => "none".to_owned(),
                text => format!("`{text}`"),
            };
            let _ = writeln!(
                out,
                "| `{}` | {default} | {} | {} |",
                setting.name,
                setting.help,
                setting.kind.domain()
            );
        }
    }
    out
}
