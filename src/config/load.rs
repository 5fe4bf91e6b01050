//! From the sources to a [`Config`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::file;
use super::problem::{ENVIRONMENT_PREFIX, Origin, Problem, Problems, environment_name};
use super::rules::{EXCLUSIVE, RULES};
use super::{Config, SETTINGS, Setting};

/// Where settings are given.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By name of the setting: the values given on the command line.
    pub flags: BTreeMap<String, Vec<String>>,
    /// The environment; only `LOCKSTEP_…` is looked at.
    pub environment: HashMap<String, String>,
    /// The file, if one is given.
    pub file: Option<PathBuf>,
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Things that may be mistakes, for the log.
    pub warnings: Vec<String>,
    given: BTreeMap<&'static str, (Origin, String)>,
}

impl Loaded {
    /// Where a setting's value came from.
    pub fn origin(&self, setting: &str) -> Origin {
        self.given
            .get(setting)
            .map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    /// The settings that were given: name and value as written (secrets hidden), by name.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.given
            .iter()
            .map(|(name, (_, text))| (*name, text.as_str()))
    }
}

/// Merges the sources: flag over environment over file over default.
///
/// # Errors
///
/// All mistakes in all sources at once. That no shard is given is not among them: `dev` brings
/// its own.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut loading = Loading::new();
    if let Some(path) = &sources.file {
        loading.file(path);
    }
    loading.environment(&sources.environment);
    loading.flags(&sources.flags);
    loading.finish()
}

/// Looks at a file alone, as `lockstep check` does.
///
/// # Errors
///
/// All mistakes in it at once.
pub fn check_file(path: &Path) -> Result<Loaded, Problems> {
    load(&Sources {
        file: Some(path.to_owned()),
        ..Sources::default()
    })
}

struct Loading {
    loaded: Loaded,
    problems: Vec<Problem>,
}

impl Loading {
    fn new() -> Self {
        let loaded = Loaded {
            config: Config::default(),
            warnings: Vec::new(),
            given: BTreeMap::new(),
        };
        Self {
            loaded,
            problems: Vec::new(),
        }
    }

    fn file(&mut self, path: &Path) {
        let text = match file::read_bounded(path) {
            Ok(text) => text,
            Err(error) => {
                let problem = Problem {
                    origin: Origin::File(path.to_owned(), None),
                    key: None,
                    message: format!("cannot read the file: {error}"),
                };
                return self.problems.push(problem);
            }
        };
        let (given, problems) = file::parse(path, &text);
        self.problems.extend(problems);
        for one in given {
            let at = |i: usize| Origin::File(path.to_owned(), one.lines.get(i).copied());
            self.apply(one.setting, &one.items, at);
        }
    }

    fn environment(&mut self, environment: &HashMap<String, String>) {
        for setting in SETTINGS {
            if let Some(value) = environment.get(&environment_name(setting.name)) {
                self.apply(setting, std::slice::from_ref(value), |_| {
                    Origin::Environment
                });
            }
        }
        // Others may set variables with our prefix (Kubernetes does, for a Service of our
        // name), so one that is unknown is worth a warning only if it looks like a mistake.
        let unknown = environment.keys().filter_map(|name| {
            let key = name.strip_prefix(ENVIRONMENT_PREFIX)?;
            let nearest = environment_name(file::nearest(key)?);
            (nearest != *name).then(|| format!("{name} is unknown; did you mean {nearest}?"))
        });
        self.loaded.warnings.extend(unknown);
        self.loaded.warnings.sort();
    }

    fn flags(&mut self, flags: &BTreeMap<String, Vec<String>>) {
        for setting in SETTINGS {
            if let Some(values) = flags.get(setting.name) {
                self.apply(setting, values, |_| Origin::Flag);
            }
        }
    }

    fn apply(
        &mut self,
        setting: &'static Setting,
        items: &[String],
        origin: impl Fn(usize) -> Origin,
    ) {
        let wrong = setting.kind.apply(&mut self.loaded.config, items);
        let problems = wrong
            .into_iter()
            .map(|(item, message)| Problem::of(setting, origin(item), message));
        self.problems.extend(problems);
        let shown = match setting.kind.is_secret() {
            true => "(hidden)".to_owned(),
            false => items.join(","),
        };
        self.loaded.given.insert(setting.name, (origin(0), shown));
    }

    /// Checks what must hold between settings, blaming a setting only for a value it was given.
    fn finish(mut self) -> Result<Loaded, Problems> {
        for rule in RULES {
            // A value that was refused is reported already, and the default in its place says
            // nothing.
            let refused = |p: &Problem| p.key.as_deref().is_some_and(|k| rule.about.contains(&k));
            if (rule.broken)(&self.loaded.config) && !self.problems.iter().any(refused) {
                self.blame(rule.about, rule.message);
            }
        }
        for (one, other) in EXCLUSIVE {
            if self.loaded.given.contains_key(one) && self.loaded.given.contains_key(other) {
                self.blame(
                    &[one, other],
                    &format!("excludes {other}: give one of them"),
                );
            }
        }
        self.problems.sort_by_key(|p| match &p.origin {
            Origin::File(_, line) => (0, *line),
            Origin::Environment => (1, None),
            Origin::Flag => (2, None),
            Origin::Default => (3, None),
        });
        match self.problems.is_empty() {
            true => Ok(self.loaded),
            false => Err(Problems(self.problems)),
        }
    }

    fn blame(&mut self, about: &[&'static str], message: &str) {
        let [first, others @ ..] = about else { return };
        let given = |name: &&&'static str| self.loaded.given.contains_key(**name);
        let (blamed, message) = match others.iter().find(given) {
            Some(other) if !given(&first) => {
                (*other, format!("conflicts with {first}, which {message}"))
            }
            _ => (*first, message.to_owned()),
        };
        self.problems.push(Problem {
            origin: self.loaded.origin(blamed),
            key: Some(blamed.to_owned()),
            message,
        });
    }
}
