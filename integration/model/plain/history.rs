//! What every command saw, and whether there is an order in which they could have run alone.

use super::program::{Program, SLOTS, Slot};

/// What a slot holds: who wrote it last, by number from 1; 0: nobody.
pub(crate) type Value = u8;
const NOT_READ: Value = Value::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Fate {
    Open,
    /// It took effect, and was answered.
    Done,
    /// EXEC was nil: no effect.
    Nil,
}

/// What is known of one command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    /// The commands that were answered before it began, a bit each.
    pub(crate) after: u16,
    saw: [Value; SLOTS],
    pub(crate) fate: Fate,
}

impl Entry {
    pub(crate) fn new() -> Self {
        Self {
            after: 0,
            saw: [NOT_READ; SLOTS],
            fate: Fate::Open,
        }
    }

    pub(crate) fn saw(&mut self, slot: Slot, value: Value) {
        self.saw[usize::from(slot)] = value;
    }
}

/// The value that a command writes.
pub(crate) fn value_of(number: usize) -> Value {
    Value::try_from(number + 1).expect("few commands")
}

/// The commands that were answered, a bit each.
pub(crate) fn answered(history: &[Entry]) -> u16 {
    let done = |(number, entry): (usize, &Entry)| u16::from(entry.fate == Fate::Done) << number;
    history.iter().enumerate().map(done).sum()
}

/// Whether what everybody saw, and what is left, comes of running one after the other in some
/// order in which no command goes before one that was answered when it began: brute force.
pub(crate) fn is_serializable(program: &Program, history: &[Entry], left: &[Value; SLOTS]) -> bool {
    place(program, history, left, 0, &[0; SLOTS])
}

fn place(
    program: &Program,
    history: &[Entry],
    left: &[Value; SLOTS],
    placed: u16,
    data: &[Value; SLOTS],
) -> bool {
    let all = answered(history);
    if placed == all {
        return data == left;
    }
    (0..history.len()).any(|number| {
        let (entry, bit) = (&history[number], 1 << number);
        let is_next = all & bit != 0 && placed & bit == 0 && entry.after & all & !placed == 0;
        let command = program.commands[number];
        let sees = |slot: Slot| {
            let at = usize::from(slot);
            !command.reads(slot) || entry.saw[at] == data[at]
        };
        if !is_next || !command.slots().all(sees) {
            return false;
        }
        let mut data = *data;
        for slot in command.slots().filter(|slot| command.writes(*slot)) {
            data[usize::from(slot)] = value_of(number);
        }
        place(program, history, left, placed | bit, &data)
    })
}

#[cfg(test)]
mod tests {
    use super::super::program::*;
    use super::*;

    /// A transaction that wrote a and b, and a client that read the one and then the other.
    fn reads(first: Value, second: Value) -> bool {
        let both = transaction(Kind::Transaction, &[A, B]);
        let program = &programs(&[both], &[get(A), get(B)], &[2])[1];
        assert_eq!(program.clients[1], [get(A), get(B)]);
        let mut history = [Entry::new(); 3];
        for entry in &mut history {
            entry.fate = Fate::Done;
        }
        history[0].saw(A, 0);
        history[0].saw(B, 0);
        history[1].saw(A, first);
        history[2].saw(B, second);
        history[2].after = 0b010;
        is_serializable(program, &history, &[1, 1, 0, 0])
    }

    /// P2, and that the checker can fail.
    #[test]
    fn tells_a_torn_read() {
        assert!(reads(0, 0) && reads(0, 1) && reads(1, 1));
        assert!(!reads(1, 0));
    }
}
