use crate::backend::{armed, hold, wakeups};
use crate::resp::build;
use crate::txn::names;

/// What links ask at the end of a batch is about the keys that the scripts write.
#[test]
fn links_ask_for_what_scripts_write() {
    assert_eq!(crate::backend::MAP, names::MAP);
    let questions: [(&[u8], &[u8], &[u8]); 5] = [
        (armed::WATCH_SETTLING, b"WATCH", names::SETTLING),
        (hold::EXISTS_SETTLING, b"EXISTS", names::SETTLING),
        (hold::HKEYS_SETTLING, b"HKEYS", names::SETTLING),
        (hold::GET_EPOCH, b"GET", names::EPOCH),
        (hold::EXISTS_INDEX, b"EXISTS", names::INDEX),
    ];
    for (question, command, key) in questions {
        let mut expected = bytes::BytesMut::new();
        build::command(&mut expected, [command, key]);
        assert_eq!(question, &expected[..]);
    }
    let mut expected = bytes::BytesMut::new();
    let pattern = [names::RELEASED, b"*"].concat();
    build::command(&mut expected, [&b"PSUBSCRIBE"[..], &pattern]);
    assert_eq!(wakeups::PSUBSCRIBE, &expected[..]);
    assert_eq!(wakeups::PREFIX, names::RELEASED);
}
