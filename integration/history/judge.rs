//! The judge: is there an order of all operations, in which each runs at once and alone, that
//! explains every reply, and in which whatever ended before something else began comes first?
//!
//! Lists that are only ever appended to tell their own history: the order of the values in a
//! list is the order of the operations that appended them, and a read that ends with a value
//! stands behind it and before the next. From that come edges between operations (as in Adya's
//! dependency graphs, and Elle's way to infer them), and with the edges of real time every
//! cycle is a violation of strict serializability. What cannot be ordered at all (values lost,
//! twice, from nowhere) is found before.
//!
//! An operation whose outcome is not known counts as done if any of its values was ever seen;
//! it then has no end in real time.

use super::graph::{Cycle, Edge, Graph};
use super::record::{History, Key, Operation, Outcome, Step, Value, short};
use std::collections::HashMap;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value that was acknowledged is not there.
    Lost,
    /// A value is there twice.
    Duplicated,
    /// A value is there that nobody appended.
    Invented,
    /// An operation has happened in part.
    Torn,
    /// A value of an operation that was said not to have happened is there.
    Aborted,
    /// A read saw an operation half way through its steps on one list.
    Intermediate,
    /// A read saw a list that the list never was.
    Fork,
    /// An operation does not see what it did itself, or does not see the same twice.
    Internal,
    /// An append answered a length at which the value does not stand.
    Length,
    /// A cycle of appends alone: no order of the writes exists.
    WriteCycle,
    /// A cycle of appends and reads of them: information flows in a circle.
    InformationCycle,
    /// A cycle of two operations: one sees the other in part, on one list and not on another.
    TornRead,
    /// A cycle of two operations that wrote the same list, one of them behind a read that misses
    /// the other.
    LostUpdate,
    /// A cycle of two operations, each of which misses the other.
    Skew,
    /// A longer cycle with reads that miss something.
    AntiDependencyCycle,
    /// A cycle that only real time closes: something that had ended is missed.
    RealTime,
}

/// One thing that is wrong, told readably.
#[derive(Clone, Debug)]
pub struct Anomaly {
    /// Its name.
    pub kind: Kind,
    /// What exactly.
    pub text: String,
}

/// Where a value comes from.
struct Origin {
    operation: usize,
    key: Key,
    /// Its place in the final list, if it is there.
    place: Option<usize>,
}

struct Judge<'a> {
    history: &'a History,
    origins: HashMap<Value, Origin>,
    /// By operation: whether it has happened.
    happened: Vec<bool>,
    anomalies: Vec<Anomaly>,
}

/// Everything that is wrong with a history; of cycles the shortest of each entangled group.
pub fn judge(history: &History) -> Vec<Anomaly> {
    let mut judge = Judge {
        history,
        origins: HashMap::new(),
        happened: Vec::new(),
        anomalies: Vec::new(),
    };
    judge.trace_values();
    judge.decide_what_happened();
    for number in 0..history.operations.len() {
        judge.check_appends(number);
        judge.check_reads(number);
    }
    // Places are ambiguous, and reads in no order, where these are wrong.
    if judge.anomalies.is_empty() {
        judge.find_cycles();
    }
    judge.anomalies
}

impl<'a> Judge<'a> {
    fn report(&mut self, kind: Kind, text: String) {
        self.anomalies.push(Anomaly { kind, text });
    }

    fn operation(&self, number: usize) -> &'a Operation {
        &self.history.operations[number]
    }

    /// Who appended what, and where it stands.
    fn trace_values(&mut self) {
        for (operation, of) in self.history.operations.iter().enumerate() {
            for step in &of.steps {
                if let Step::Append { key, value, .. } = step {
                    let (key, place) = (*key, None);
                    self.origins.insert(
                        *value,
                        Origin {
                            operation,
                            key,
                            place,
                        },
                    );
                }
            }
        }
        for (key, list) in self.history.lists.iter().enumerate() {
            for (place, value) in list.iter().enumerate() {
                self.place(key, place, *value);
            }
        }
    }

    fn place(&mut self, key: Key, place: usize, value: Value) {
        let name = self.history.name(key);
        let wrong = match self.origins.get_mut(&value) {
            Some(origin) if origin.key != key => Kind::Invented,
            None => Kind::Invented,
            Some(Origin { place: Some(_), .. }) => Kind::Duplicated,
            Some(origin) => {
                origin.place = Some(place);
                return;
            }
        };
        self.report(wrong, format!("{value} at {place} of {name}"));
    }

    fn decide_what_happened(&mut self) {
        let mut happened: Vec<bool> = self
            .history
            .operations
            .iter()
            .map(|operation| operation.outcome == Outcome::Committed)
            .collect();
        for origin in self.origins.values() {
            happened[origin.operation] |= origin.place.is_some();
        }
        self.happened = happened;
    }

    fn check_appends(&mut self, number: usize) {
        let operation = self.operation(number);
        for step in &operation.steps {
            let Step::Append { key, value, length } = step else {
                continue;
            };
            let place = self.origins.get(value).and_then(|origin| origin.place);
            let kind = match (operation.outcome, place, length) {
                (Outcome::Committed, None, _) => Kind::Lost,
                (Outcome::Unknown, None, _) if self.happened[number] => Kind::Torn,
                (Outcome::Aborted, Some(_), _) => Kind::Aborted,
                (_, Some(place), Some(length)) if place + 1 != *length => Kind::Length,
                _ => continue,
            };
            let list = short(&self.history.lists[*key]);
            let operation = self.history.describe(number);
            self.report(kind, format!("{value}: {operation}; at the end {list}"));
        }
    }

    fn check_reads(&mut self, number: usize) {
        let mut own: HashMap<Key, Vec<Value>> = HashMap::new();
        let mut base: HashMap<Key, usize> = HashMap::new();
        for step in &self.operation(number).steps {
            let (key, seen) = match step {
                Step::Append { key, value, .. } => {
                    own.entry(*key).or_default().push(*value);
                    continue;
                }
                Step::Read { seen: None, .. } => continue,
                Step::Read {
                    key,
                    seen: Some(seen),
                } => (*key, seen),
            };
            let mine = own.entry(key).or_default();
            let kind = match self.wrong_read(number, key, seen) {
                Some(kind) => kind,
                None if !seen.ends_with(mine) => Kind::Internal,
                None => {
                    let others = seen.len() - mine.len();
                    match base.insert(key, others) {
                        Some(before) if before != others => Kind::Internal,
                        _ => continue,
                    }
                }
            };
            let operation = self.history.describe(number);
            let (name, list) = (self.history.name(key), short(&self.history.lists[key]));
            let text = format!("{name} was seen as {seen:?} by {operation}; at the end {list}");
            self.report(kind, text);
        }
    }

    /// What is wrong with a list that was seen, whatever else happened.
    fn wrong_read(&self, reader: usize, key: Key, seen: &[Value]) -> Option<Kind> {
        let list = &self.history.lists[key];
        if !list.starts_with(seen) {
            return Some(self.wrong_list(key, seen));
        }
        // The last value seen, and the one that came next, are of one operation: half of it.
        let (last, next) = (seen.last()?, list.get(seen.len())?);
        let of = |value: &Value| self.origins.get(value).map(|origin| origin.operation);
        (of(last) == of(next) && of(last) != Some(reader)).then_some(Kind::Intermediate)
    }

    fn wrong_list(&self, key: Key, seen: &[Value]) -> Kind {
        let mut known = std::collections::HashSet::new();
        for value in seen {
            match self.origins.get(value) {
                Some(origin) if origin.key == key => {
                    let outcome = self.operation(origin.operation).outcome;
                    if outcome == Outcome::Aborted {
                        return Kind::Aborted;
                    }
                    if origin.place.is_none() {
                        return Kind::Lost;
                    }
                }
                _ => return Kind::Invented,
            }
            if !known.insert(value) {
                return Kind::Duplicated;
            }
        }
        Kind::Fork
    }
}

/// Cycles of two have names of their own.
fn name(kind: Kind, cycle: &Cycle) -> Kind {
    let missing = cycle.iter().filter(|link| link.edge == Edge::Rw).count();
    match (kind, cycle.len(), missing) {
        (Kind::AntiDependencyCycle, 2, 1) if is_update(cycle) => Kind::LostUpdate,
        (Kind::AntiDependencyCycle, 2, 1) => Kind::TornRead,
        (Kind::AntiDependencyCycle, 2, _) => Kind::Skew,
        _ => kind,
    }
}

/// Whether one misses what the other wrote into a list that both have written.
fn is_update(cycle: &Cycle) -> bool {
    let list = |edge: Edge| {
        let mut links = cycle.iter().filter(move |link| link.edge == edge);
        links.find_map(|link| link.about).map(|(key, _)| key)
    };
    list(Edge::Rw).is_some() && list(Edge::Rw) == list(Edge::Ww)
}

impl Judge<'_> {
    fn find_cycles(&mut self) {
        let mut graph = Graph::new(self.history.operations.len());
        self.add_write_order(&mut graph);
        self.add_reads(&mut graph);
        self.add_real_time(&mut graph);
        let passes: [(&[Edge], Kind); 4] = [
            (&[Edge::Ww], Kind::WriteCycle),
            (&[Edge::Ww, Edge::Wr], Kind::InformationCycle),
            (&[Edge::Ww, Edge::Wr, Edge::Rw], Kind::AntiDependencyCycle),
            (&[Edge::Ww, Edge::Wr, Edge::Rw, Edge::Time], Kind::RealTime),
        ];
        for (edges, kind) in passes {
            let cycles = graph.cycles(edges);
            for cycle in &cycles {
                let text = self.tell(cycle);
                self.report(name(kind, cycle), text);
            }
            // What is wrong with fewer edges is wrong with more.
            if !cycles.is_empty() {
                return;
            }
        }
    }

    fn owner(&self, key: Key, place: usize) -> Option<usize> {
        let value = self.history.lists[key].get(place)?;
        Some(self.origins.get(value)?.operation)
    }

    fn add_write_order(&self, graph: &mut Graph) {
        for (key, list) in self.history.lists.iter().enumerate() {
            for place in 1..list.len() {
                if let (Some(one), Some(next)) =
                    (self.owner(key, place - 1), self.owner(key, place))
                {
                    graph.add(one, next, Edge::Ww, Some((key, place)));
                }
            }
        }
    }

    fn add_reads(&self, graph: &mut Graph) {
        for (number, operation) in self.history.operations.iter().enumerate() {
            if !self.happened[number] {
                continue;
            }
            let mut own: HashMap<Key, usize> = HashMap::new();
            for step in &operation.steps {
                match step {
                    Step::Append { key, .. } => *own.entry(*key).or_default() += 1,
                    Step::Read {
                        key,
                        seen: Some(seen),
                    } => {
                        // Its own, which it sees at the end, are ordered as writes.
                        let mine = own.get(key).copied().unwrap_or(0);
                        let others = seen.len() - mine;
                        if let Some(last) = others.checked_sub(1)
                            && let Some(writer) = self.owner(*key, last)
                        {
                            graph.add(writer, number, Edge::Wr, Some((*key, last)));
                        }
                        if let Some(next) = self.owner(*key, seen.len()) {
                            graph.add(number, next, Edge::Rw, Some((*key, seen.len())));
                        }
                    }
                    Step::Read { seen: None, .. } => {}
                }
            }
        }
    }

    /// "Ended before it began", in as many edges as there are operations: a chain of instants,
    /// which each operation enters where it ends and leaves where it begins.
    fn add_real_time(&self, graph: &mut Graph) {
        let mut instants: Vec<(u64, bool, usize)> = Vec::new();
        for (number, operation) in self.history.operations.iter().enumerate() {
            if !self.happened[number] {
                continue;
            }
            instants.push((operation.began, false, number));
            if operation.outcome != Outcome::Unknown {
                instants.push((operation.ended, true, number));
            }
        }
        instants.sort_unstable();
        let mut latest = None;
        for (_, is_end, number) in instants {
            if is_end {
                let instant = graph.add_instant();
                graph.add(number, instant, Edge::Time, None);
                if let Some(before) = latest.replace(instant) {
                    graph.add(before, instant, Edge::Time, None);
                }
            } else if let Some(before) = latest {
                graph.add(before, number, Edge::Time, None);
            }
        }
    }

    /// A cycle, one operation to a line, each followed by why the next comes after it.
    fn tell(&self, cycle: &Cycle) -> String {
        let mut text = String::new();
        for link in cycle {
            let why = match (link.edge, link.about) {
                (Edge::Time, _) => "ended before the next began".to_owned(),
                (edge, Some((key, place))) => {
                    let (name, list) = (self.history.name(key), &self.history.lists[key]);
                    let value = list.get(place).copied().unwrap_or(0);
                    match edge {
                        Edge::Wr => format!("its {value} in {name} is seen by the next"),
                        Edge::Rw => format!("it misses {value} in {name}, of the next"),
                        _ => format!("{value} in {name}, of the next, stands behind its value"),
                    }
                }
                (_, None) => String::new(),
            };
            text.push_str(&format!(
                "\n  {}\n      {why} ({:?})",
                self.history.describe(link.from),
                link.edge
            ));
        }
        text.push_str("\n  … which is the first again");
        text
    }
}
