//! Scripts that were given up.
//!
//! When the reply of a client's script has not come in time, the connection is given up and the
//! client told so; but the script runs on, and as long as it does its shard serves nobody. So the
//! shard is told to end it. One that has written goes on, by the shard's own rule. Scripts that
//! were sent behind it on the lost connection run after it, as if nothing had happened: so many
//! are ended and no more, since what runs then is somebody else's.

use super::Dial;
use crate::resp;

const SCRIPT_KILL: &[u8] = b"*2\r\n$6\r\nSCRIPT\r\n$4\r\nKILL\r\n";
const FUNCTION_KILL: &[u8] = b"*2\r\n$8\r\nFUNCTION\r\n$4\r\nKILL\r\n";

/// Ends the script that runs on this shard, if one does that has written nothing; whether it did.
pub(super) async fn end_script(dial: &Dial) -> bool {
    for request in [SCRIPT_KILL, FUNCTION_KILL] {
        let Ok(reply) = dial.ask_apart(request).await else {
            return false;
        };
        if !resp::is_error(&reply) {
            let shard = &dial.address;
            tracing::warn!(shard, "ended a script that had not answered in time");
            return true;
        }
    }
    false
}
