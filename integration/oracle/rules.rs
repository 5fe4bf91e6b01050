//! When two replies count as the same: byte for byte, but for what one Redis itself does not
//! promise twice (the order of a hash table, the milliseconds left of a time to live).

use crate::support::{Reply, Value};

/// How to compare the replies of one command.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The bytes.
    Exact,
    /// The elements of the array in any order.
    Unordered,
    /// Pairs (field and value) in any order.
    UnorderedPairs,
    /// `[cursor, elements]`; elements in groups of so many, in any order.
    Scan(usize),
    /// Integers may differ by so much, at any depth.
    Near(i64),
    /// HELLO: all but the client's number.
    Hello,
    /// EXEC: each element by the rule of its command.
    Each(Vec<Rule>),
}

impl Rule {
    /// Whether the replies are the same by this rule.
    pub fn same(&self, wanted: &Reply, got: &Reply) -> bool {
        wanted.raw == got.raw || self.same_value(&wanted.value, &got.value)
    }

    fn same_value(&self, wanted: &Value, got: &Value) -> bool {
        use Value::{Array, Map, Set};
        match (self, wanted, got) {
            (Rule::Unordered, Array(wanted), Array(got))
            | (Rule::Unordered, Set(wanted), Set(got)) => groups(wanted, 1) == groups(got, 1),
            // In RESP3 pairs are a map, or an array each.
            (Rule::UnorderedPairs, Array(wanted), Array(got)) => {
                let size = if wanted.iter().all(|pair| matches!(pair, Array(_))) {
                    1
                } else {
                    2
                };
                groups(wanted, size) == groups(got, size)
            }
            (Rule::UnorderedPairs, Map(wanted), Map(got)) => groups(wanted, 2) == groups(got, 2),
            (Rule::Hello, Map(wanted), Map(got)) | (Rule::Hello, Array(wanted), Array(got)) => {
                let but_number = |fields: &[Value]| {
                    let mut fields = fields.to_vec();
                    if let Some(number @ Value::Integer(_)) = fields.get_mut(7) {
                        *number = Value::Nil;
                    }
                    fields
                };
                but_number(wanted) == but_number(got)
            }
            (Rule::Scan(size), Array(wanted), Array(got)) => match (&wanted[..], &got[..]) {
                ([from, Array(wanted)], [to, Array(got)]) => {
                    from == to && groups(wanted, *size) == groups(got, *size)
                }
                _ => wanted == got,
            },
            (Rule::Near(by), Array(wanted), Array(got))
            | (Rule::Near(by), Map(wanted), Map(got)) => {
                wanted.len() == got.len()
                    && wanted
                        .iter()
                        .zip(got)
                        .all(|(wanted, got)| self.same_value(wanted, got))
                    && *by >= 0
            }
            (Rule::Near(by), Value::Integer(wanted), Value::Integer(got)) => {
                wanted == got
                    || (*wanted >= 0 && *got >= 0 && wanted.abs_diff(*got) <= by.unsigned_abs())
            }
            (Rule::Each(rules), Array(wanted), Array(got)) => {
                wanted.len() == got.len()
                    && wanted.len() == rules.len()
                    && (rules.iter().zip(wanted.iter().zip(got)))
                        .all(|(rule, (wanted, got))| rule.same_value(wanted, got))
            }
            _ => wanted == got,
        }
    }
}

fn groups(values: &[Value], size: usize) -> Vec<String> {
    let print = |group: &[Value]| format!("{group:?}");
    let mut groups: Vec<String> = values.chunks(size).map(print).collect();
    groups.sort();
    groups
}

/// The rule of one command by itself.
fn of_command(args: &[Vec<u8>]) -> Rule {
    let word = |index: usize| {
        let word = args.get(index).map_or(&[][..], Vec::as_slice);
        String::from_utf8_lossy(word).to_uppercase()
    };
    match word(0).as_str() {
        "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" | "HKEYS" | "HVALS" | "SPOP" | "SRANDMEMBER"
        | "ZRANDMEMBER" => Rule::Unordered,
        "HGETALL" => Rule::UnorderedPairs,
        "HRANDFIELD" if args.len() > 3 => Rule::UnorderedPairs,
        "HRANDFIELD" => Rule::Unordered,
        "SSCAN" => Rule::Scan(1),
        "HSCAN" | "ZSCAN" => Rule::Scan(2),
        "SORT" | "SORT_RO" if (1..args.len()).any(|at| word(at) == "NOSORT") => Rule::Unordered,
        "HELLO" => Rule::Hello,
        "TTL" | "EXPIRETIME" => Rule::Near(2),
        "PTTL" | "PEXPIRETIME" => Rule::Near(3_000),
        "XPENDING" | "XINFO" => Rule::Near(5_000),
        "OBJECT" if word(1) == "IDLETIME" => Rule::Near(2),
        _ => Rule::Exact,
    }
}

/// Follows MULTI and EXEC, so that EXEC's elements are compared by their commands' rules.
#[derive(Debug, Default)]
pub struct Rules {
    queued: Option<Vec<Rule>>,
}

impl Rules {
    /// The rule for the reply to `args`, which the plain server has answered with `reply`.
    pub fn next(&mut self, args: &[Vec<u8>], reply: &Value) -> Rule {
        let name = args
            .first()
            .map_or(&[][..], Vec::as_slice)
            .to_ascii_uppercase();
        match (name.as_slice(), &mut self.queued) {
            (b"MULTI", None) => {
                self.queued = Some(Vec::new());
                Rule::Exact
            }
            (b"EXEC", Some(_)) => self.queued.take().map_or(Rule::Exact, Rule::Each),
            (b"DISCARD" | b"RESET", _) => {
                self.queued = None;
                Rule::Exact
            }
            (_, Some(queued)) => {
                if *reply == Value::Simple(b"QUEUED".to_vec()) {
                    queued.push(of_command(args));
                }
                Rule::Exact
            }
            (_, None) => of_command(args),
        }
    }
}
