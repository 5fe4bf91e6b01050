//! The questions at the end of a batch, from wherever they are asked.
//!
//! What they are about is kept in database 0. From a connection that is set to another one they
//! are asked by a script, since two SELECTs round the question would not do: a server that is
//! busy with a slow script refuses them like everything else, and then perhaps answers what
//! stands behind them, in the wrong database. What a script selects ends with the script. It is
//! sent as a text, not by its hash, so that no server can have lost it.

use super::hold::{Check, EXISTS_INDEX, EXISTS_SETTLING, GET_EPOCH, HKEYS_SETTLING};

/// Bulks: the key's name and the command, each with its length.
macro_rules! afar {
    ($key:literal, $command:literal) => {
        concat!(
            "*5\r\n$7\r\nEVAL_RO\r\n$58\r\n",
            "redis.call('SELECT','0')return redis.call(ARGV[1],KEYS[1])",
            "\r\n$1\r\n1\r\n",
            $key,
            "\r\n",
            $command,
            "\r\n"
        )
        .as_bytes()
    };
}

const EXISTS_SETTLING_AFAR: &[u8] = afar!("$19\r\n__lockstep:settling", "$6\r\nEXISTS");
const HKEYS_SETTLING_AFAR: &[u8] = afar!("$19\r\n__lockstep:settling", "$5\r\nHKEYS");
const GET_EPOCH_AFAR: &[u8] = afar!("$16\r\n__lockstep:epoch", "$3\r\nGET");
const EXISTS_INDEX_AFAR: &[u8] = afar!("$16\r\n__lockstep:index", "$6\r\nEXISTS");

impl Check {
    /// The request, on a connection in database 0 or in another one.
    pub(super) fn question(self, is_afar: bool) -> &'static [u8] {
        match (self, is_afar) {
            (Self::Settling, false) => EXISTS_SETTLING,
            (Self::SettlingKeys, false) => HKEYS_SETTLING,
            (Self::Epoch, false) => GET_EPOCH,
            (Self::Index, false) => EXISTS_INDEX,
            (Self::Settling, true) => EXISTS_SETTLING_AFAR,
            (Self::SettlingKeys, true) => HKEYS_SETTLING_AFAR,
            (Self::Epoch, true) => GET_EPOCH_AFAR,
            (Self::Index, true) => EXISTS_INDEX_AFAR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{CommandScanner, Limits, Scan};

    fn args(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut scanner = CommandScanner::new(Limits::default());
        assert_eq!(
            scanner.scan(bytes),
            Ok(Scan::Command { len: bytes.len() }),
            "{}",
            bytes.escape_ascii()
        );
        let command = scanner.command(bytes);
        command.args().map(<[u8]>::to_vec).collect()
    }

    /// P2 in every database: from afar the same is asked.
    #[test]
    fn the_same_is_asked_from_afar() {
        for check in [
            Check::Settling,
            Check::SettlingKeys,
            Check::Epoch,
            Check::Index,
        ] {
            let (near, afar) = (args(check.question(false)), args(check.question(true)));
            assert_eq!(near, [afar[4].clone(), afar[3].clone()]);
            assert_eq!((&afar[0][..], &afar[2][..]), (&b"EVAL_RO"[..], &b"1"[..]));
        }
    }
}
