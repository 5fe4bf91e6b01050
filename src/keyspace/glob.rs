//! The patterns of PSUBSCRIBE, as redis-server matches them: `*`, `?`, `[a-z]`, `[^a]`, `\`.

/// Whether the text matches the pattern. Its time is bounded by the product of both lengths.
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a guess at what a star stands for was wrong: the last star is enough.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        match element(pattern, p, text[t]) {
            Some(next) => (p, t) = (next, t + 1),
            None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
}

/// Where the pattern goes on behind the element at `p`, if that stands for this byte.
fn element(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        plain => (*plain == byte).then_some(p + 1),
    }
}

/// The same for a class, behind its opening bracket. One that is not closed ends with the
/// pattern, as in redis-server.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let is_negated = pattern.get(p) == Some(&b'^');
    p += usize::from(is_negated);
    let mut is_in = false;
    while let Some(&first) = pattern.get(p) {
        match (first, pattern.get(p + 1), pattern.get(p + 2)) {
            (b'\\', Some(escaped), _) => {
                is_in |= *escaped == byte;
                p += 2;
            }
            (b']', ..) => {
                p += 1;
                break;
            }
            (_, Some(b'-'), Some(last)) => {
                let (low, high) = (first.min(*last), first.max(*last));
                is_in |= (low..=high).contains(&byte);
                p += 3;
            }
            _ => {
                is_in |= first == byte;
                p += 1;
            }
        }
    }
    (is_in != is_negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let yes = [
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbc"),
            ("a*b*c", "a.b.b.c"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("[\\]]", "]"),
            ("news.*", "news.art"),
            ("**a", "ba"),
            ("[a", "a"),
            ("__key*__:*", "__keyspace@0__:k"),
        ];
        for (pattern, text) in yes {
            let matches = glob_matches(pattern.as_bytes(), text.as_bytes());
            assert!(matches, "{pattern} {text}");
        }
        let no = [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("h[^a]llo", "hallo"),
            ("h[a-c]llo", "hdllo"),
            ("a\\*b", "axb"),
            ("a*d", "abc"),
            ("A", "a"),
            ("abc", "ab"),
        ];
        for (pattern, text) in no {
            let matches = glob_matches(pattern.as_bytes(), text.as_bytes());
            assert!(!matches, "{pattern} {text}");
        }
    }
}
