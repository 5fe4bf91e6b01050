//! A graph of operations and instants, and its shortest cycles.

use super::record::Key;
use std::collections::{HashMap, VecDeque};

/// Why one comes before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Its value stands before the other's in a list.
    Ww,
    /// The other has seen its value.
    Wr,
    /// It has not seen the other's value.
    Rw,
    /// It ended before the other began.
    Time,
}

/// One edge of a cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The operation it leaves.
    pub from: usize,
    /// Its kind.
    pub edge: Edge,
    /// The list and the place in it that tell.
    pub about: Option<(Key, usize)>,
}

/// Operations in a circle.
pub type Cycle = Vec<Link>;

/// The cycles that are told of one pass; more would be the same again.
const CYCLES_MAX: usize = 5;
/// Operations from which shortest cycles are sought in one entangled group.
const STARTS_MAX: usize = 400;

struct Arc {
    to: usize,
    edge: Edge,
    about: Option<(Key, usize)>,
}

/// Nodes are numbers: operations first, instants behind.
pub struct Graph {
    operations: usize,
    arcs: Vec<Vec<Arc>>,
}

impl Graph {
    /// Without edges.
    pub fn new(operations: usize) -> Graph {
        Graph {
            operations,
            arcs: (0..operations).map(|_| Vec::new()).collect(),
        }
    }

    /// One more node, which is no operation.
    pub fn add_instant(&mut self) -> usize {
        self.arcs.push(Vec::new());
        self.arcs.len() - 1
    }

    /// An edge; none from a node to itself.
    pub fn add(&mut self, from: usize, to: usize, edge: Edge, about: Option<(Key, usize)>) {
        if from != to {
            self.arcs[from].push(Arc { to, edge, about });
        }
    }

    /// The shortest cycle of each group of nodes that reach each other over these edges.
    pub fn cycles(&self, edges: &[Edge]) -> Vec<Cycle> {
        let groups = self.groups(edges);
        let mut sizes: HashMap<usize, Vec<usize>> = HashMap::new();
        for (node, group) in groups.iter().enumerate() {
            if node < self.operations {
                sizes.entry(*group).or_default().push(node);
            }
        }
        let mut entangled: Vec<Vec<usize>> = sizes
            .into_values()
            .filter(|nodes| nodes.len() > 1)
            .collect();
        entangled.sort();
        let cycles = entangled.iter().filter_map(|nodes| {
            let step = nodes.len().div_ceil(STARTS_MAX);
            let starts = nodes.iter().step_by(step);
            starts
                .filter_map(|&start| self.shortest_through(start, edges, &groups))
                .min_by_key(Vec::len)
        });
        cycles.take(CYCLES_MAX).collect()
    }

    /// By node, the number of its strongly connected component (Tarjan's algorithm, without
    /// recursion: histories are long).
    fn groups(&self, edges: &[Edge]) -> Vec<usize> {
        const NEW: usize = usize::MAX;
        let count = self.arcs.len();
        let (mut index, mut low, mut group) = (vec![NEW; count], vec![0; count], vec![NEW; count]);
        let (mut next, mut open, mut calls) = (0, Vec::new(), Vec::new());
        for root in 0..count {
            if index[root] != NEW {
                continue;
            }
            calls.push((root, 0));
            while let Some((node, at)) = calls.pop() {
                if at == 0 {
                    (index[node], low[node]) = (next, next);
                    next += 1;
                    open.push(node);
                }
                let Some(arc) = self.arcs[node].get(at) else {
                    if low[node] == index[node] {
                        while let Some(member) = open.pop() {
                            group[member] = node;
                            if member == node {
                                break;
                            }
                        }
                    }
                    if let Some((parent, _)) = calls.last() {
                        low[*parent] = low[*parent].min(low[node]);
                    }
                    continue;
                };
                calls.push((node, at + 1));
                if !edges.contains(&arc.edge) {
                    continue;
                }
                if index[arc.to] == NEW {
                    calls.push((arc.to, 0));
                } else if group[arc.to] == NEW {
                    low[node] = low[node].min(index[arc.to]);
                }
            }
        }
        group
    }

    /// Breadth first from an operation back to itself, inside its group.
    fn shortest_through(&self, start: usize, edges: &[Edge], groups: &[usize]) -> Option<Cycle> {
        let mut came: HashMap<usize, Link> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for arc in &self.arcs[node] {
                if !edges.contains(&arc.edge) || groups[arc.to] != groups[start] {
                    continue;
                }
                let link = Link {
                    from: node,
                    edge: arc.edge,
                    about: arc.about,
                };
                if arc.to == start {
                    return Some(self.trace(start, link, &came));
                }
                if let std::collections::hash_map::Entry::Vacant(free) = came.entry(arc.to) {
                    free.insert(link);
                    // Along the chain of instants is no way: it costs nothing.
                    if arc.to >= self.operations {
                        queue.push_front(arc.to);
                    } else {
                        queue.push_back(arc.to);
                    }
                }
            }
        }
        None
    }

    /// The way back, without the instants.
    fn trace(&self, start: usize, last: Link, came: &HashMap<usize, Link>) -> Cycle {
        let mut cycle = vec![last];
        let mut at = last.from;
        while at != start {
            let link = came[&at];
            cycle.push(link);
            at = link.from;
        }
        cycle.reverse();
        cycle.retain(|link| link.from < self.operations);
        cycle
    }
}
