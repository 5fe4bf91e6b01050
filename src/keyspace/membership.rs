//! What each shard notes of the shard map it is part of, so that no two lockstep serve the same
//! shards by different maps: keys would be looked for where they are not, and transactions
//! recovered on shards that never took part.

use std::fmt;

/// How keys become slots and slots shards; another way needs another name.
const FUNCTION: &str = "crc16/16384";

/// One shard's part in a map. As text `<map> <number> <count> <function>`, in which form the
/// shard keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The id of the map, chosen at random when the shards were first served.
    pub map: String,
    /// The number of this shard, from 0.
    pub number: u16,
    /// How many shards there are.
    pub count: u16,
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {FUNCTION}", self.map, self.number, self.count)
    }
}

impl Membership {
    /// The part of the shard of this number, from 0, in a map of this id over so many shards.
    pub fn new(map: &str, number: u16, count: u16) -> Self {
        Self {
            map: map.to_owned(),
            number,
            count,
        }
    }

    /// Reads what a shard keeps; None when it is not understood, or of another function.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (map, number, count) = (words.next()?, words.next()?, words.next()?);
        let is_ours = words.next() == Some(FUNCTION) && words.next().is_none() && !map.is_empty();
        let membership = Self {
            map: map.to_owned(),
            number: number.parse().ok()?,
            count: count.parse().ok()?,
        };
        (is_ours && membership.number < membership.count).then_some(membership)
    }
}

/// The id of the map that these shards, in this order, have noted; None when none has. `notes`
/// are address and note of each, without one where there is none.
///
/// # Errors
/// A text for people, when they are not the shards of one map in its order.
pub fn agreed(notes: &[(&str, Option<&str>)]) -> Result<Option<String>, String> {
    let mut first: Option<(&str, Membership)> = None;
    for (here, (address, note)) in notes.iter().enumerate() {
        let Some(note) = note else {
            continue;
        };
        let Some(noted) = Membership::parse(note) else {
            return Err(format!(
                "shard {address} notes a shard map that this version does not understand: {note}"
            ));
        };
        if (usize::from(noted.number), usize::from(noted.count)) != (here, notes.len()) {
            return Err(format!(
                "shard {address} is number {here} of {} here, counted from 0, but number {} of {} \
                 in the shard map {} by which it was first served: {HINT}",
                notes.len(),
                noted.number,
                noted.count,
                noted.map
            ));
        }
        match &first {
            None => first = Some((address, noted)),
            Some((_, known)) if known.map == noted.map => {}
            Some((other, known)) => {
                return Err(format!(
                    "shard {address} belongs to the shard map {}, shard {other} to {}: {HINT}",
                    noted.map, known.map
                ));
            }
        }
    }
    Ok(first.map(|(_, known)| known.map))
}

const HINT: &str = "every lockstep must be given the same shards in the same order (`lockstep map \
                    show` tells what they note, `lockstep map adopt` changes it)";

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(map: &str, count: u16) -> Vec<String> {
        let number = |number| Membership::new(map, number, count).to_string();
        (0..count).map(number).collect()
    }

    fn of<'a>(notes: &[Option<&'a str>]) -> Result<Option<String>, String> {
        let named: Vec<(&str, Option<&'a str>)> = ["a:1", "b:1", "c:1", "d:1"]
            .into_iter()
            .zip(notes.iter().copied())
            .collect();
        agreed(&named)
    }

    #[test]
    fn a_note_reads_back() {
        for number in 0..3 {
            let membership = Membership::new("f00", number, 3);
            assert_eq!(Membership::parse(&membership.to_string()), Some(membership));
        }
        for other in [
            "",
            "f00 0 3",
            "f00 3 3 crc16/16384",
            "f00 0 3 modulo",
            "f00 0 3 crc16/16384 x",
        ] {
            assert_eq!(Membership::parse(other), None, "{other}");
        }
    }

    /// Another order, a shard too few or too many, a shard of others: each is refused by name.
    #[test]
    fn only_the_same_shards_in_the_same_order_agree() {
        let all = notes("f00", 3);
        let [a, b, c] = [0, 1, 2].map(|at| Some(all[at].as_str()));
        assert_eq!(of(&[a, b, c]), Ok(Some("f00".to_owned())));
        assert_eq!(of(&[None, b, None]), Ok(Some("f00".to_owned())));
        assert_eq!(of(&[None, None]), Ok(None));
        let error = of(&[b, a, c]).unwrap_err();
        assert!(error.contains("a:1 is number 0 of 3") && error.contains("number 1 of 3"));
        assert!(of(&[a, b]).unwrap_err().contains("number 0 of 2 here"));
        assert!(
            of(&[a, b, c, None])
                .unwrap_err()
                .contains("number 0 of 4 here")
        );
        let strange = notes("bad", 3);
        let error = of(&[a, Some(&strange[1]), c]).unwrap_err();
        assert!(
            error.contains("b:1 belongs to the shard map bad, shard a:1 to f00"),
            "{error}"
        );
    }
}
