//! Looking into complete replies.

pub(super) fn line(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = frame.windows(2).position(|pair| pair == b"\r\n")?;
    Some((frame.get(..end)?, frame.get(end + 2..)?))
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn is_error(frame: &[u8]) -> bool {
    frame.first() == Some(&b'-')
}

pub(super) fn is_null(frame: &[u8]) -> bool {
    matches!(frame, [b'_', ..] | [b'$' | b'*', b'-', ..])
}

pub(super) fn error_text(frame: &[u8]) -> &[u8] {
    match line(frame) {
        Some(([b'-', text @ ..], _)) => text,
        _ => b"",
    }
}

pub(super) fn as_int(frame: &[u8]) -> Option<i64> {
    match line(frame)? {
        ([b':', digits @ ..], _) => number(digits),
        _ => None,
    }
}

pub(super) fn as_status(frame: &[u8]) -> Option<&[u8]> {
    match line(frame)? {
        ([b'+', text @ ..], _) => Some(text),
        _ => None,
    }
}

pub(super) fn as_bulk(frame: &[u8]) -> Option<&[u8]> {
    match line(frame)? {
        ([b'$', len @ ..], rest) => rest.get(..usize::try_from(number(len)?).ok()?),
        _ => None,
    }
}

/// Length of the first complete reply.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut open) = (0, 1usize);
    while open > 0 {
        open -= 1;
        let (head, _) = line(bytes.get(at..)?)?;
        at += head.len() + 2;
        let len = usize::try_from(number(head.get(1..)?).unwrap_or(0)).unwrap_or(0);
        match head.first()? {
            b'$' if head.get(1) != Some(&b'-') => at = at.checked_add(len)?.checked_add(2)?,
            b'*' => open = open.checked_add(len)?,
            _ => {}
        }
    }
    Some(at)
}

pub(super) fn elements(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match line(frame) {
        Some(([b'*', ..], rest)) => rest,
        _ => b"",
    };
    std::iter::from_fn(move || {
        let element = rest.get(..frame_len(rest)?)?;
        rest = &rest[element.len()..];
        Some(element)
    })
}
