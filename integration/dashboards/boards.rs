//! Dashboards as Grafana stores them.

use std::fs::{read_dir, read_to_string};
use std::path::Path;

use serde_json::Value;

/// One expression.
#[derive(Debug)]
pub struct Query {
    /// Which panel or alert it belongs to.
    pub place: String,
    text: String,
}

impl Query {
    /// An expression that belongs to `place`.
    pub fn new(place: String, text: &str) -> Query {
        Query {
            place,
            text: text.to_owned(),
        }
    }

    /// The expression with Grafana's variables filled in, and without the comparison that makes
    /// an alert silent while all is well.
    pub fn instantiate(&self, instance: &str) -> String {
        let text = self
            .text
            .replace("$job", ".*")
            .replace(
                "instance=\"$instance\"",
                &format!("instance=\"{instance}\""),
            )
            .replace("$instance", ".*")
            .replace("$shard", ".*")
            .replace("$__rate_interval", "8s")
            .replace("[5m]", "[15s]")
            .replace("[10m]", "[15s]");
        for sign in [" == ", " > ", " < "] {
            if let Some((left, right)) = text.rsplit_once(sign)
                && right.trim().parse::<f64>().is_ok()
            {
                return left.to_owned();
            }
        }
        text
    }

    /// The names of our metrics in it.
    pub fn metrics(&self) -> Vec<&str> {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.text
            .split(|c| !is_of_name(c))
            .filter(|word| word.starts_with("lockstep_"))
            .collect()
    }
}

/// One dashboard.
#[derive(Debug)]
pub struct Board {
    pub title: String,
    pub queries: Vec<Query>,
    /// Where its panels' links lead.
    pub links: Vec<String>,
}

impl Board {
    /// All dashboards in a folder.
    pub fn all(folder: &Path) -> Vec<Board> {
        let files = read_dir(folder).expect("the folder of dashboards");
        let mut boards: Vec<Board> = files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .map(|path| Board::read(&path))
            .collect();
        boards.sort_by(|a, b| a.title.cmp(&b.title));
        boards
    }

    fn read(path: &Path) -> Board {
        let text = read_to_string(path).expect("a dashboard");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let title = text_of(&json["title"]);
        let panels: Vec<&Value> = json["panels"]
            .as_array()
            .expect("panels")
            .iter()
            .filter(|panel| panel["type"] != "row")
            .collect();
        let mut board = Board {
            title: title.clone(),
            queries: Vec::new(),
            links: Vec::new(),
        };
        for panel in panels {
            let place = format!("{title}: {}", text_of(&panel["title"]));
            assert!(
                !text_of(&panel["description"]).is_empty(),
                "{place}: says nothing"
            );
            for target in panel["targets"].as_array().expect("targets") {
                board
                    .queries
                    .push(Query::new(place.clone(), &text_of(&target["expr"])));
            }
            for link in panel["links"].as_array().into_iter().flatten() {
                board.links.push(text_of(&link["url"]));
            }
        }
        for variable in json["templating"]["list"].as_array().expect("variables") {
            if variable["type"] == "query" {
                let text = text_of(&variable["query"]["query"]);
                // label_values(SELECTOR, label)
                let selector = text
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.rsplit_once(", "))
                    .expect("label_values");
                let place = format!("{title}: ${}", text_of(&variable["name"]));
                board.queries.push(Query::new(place, selector.0));
            }
        }
        board
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
