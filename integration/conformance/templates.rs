//! Random commands of the kinds whose replies a script can carry.

/// A small generator of pseudo-random numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Commands (several where one alone would be random). A word with `$` is filled in: a key of a
/// type (`s`tring, `l`ist, `h`ash, s`e`t, `z`set, stream `x`, HyperLogLog `p`) or any (`k`),
/// a `v`alue, `m`ember, `f`ield, `i`nteger of any size or none, small i`n`dex, `o`ffset,
/// `d`ouble, `t`ime in the far future or past, `c`ount for ids, what DUMP `w`rote.
pub(crate) const TEMPLATES: &[&str] = &[
    "APPEND $s $v",
    "BITCOUNT $s",
    "BITCOUNT $s $n $n BIT",
    "BITOP AND $s $s $s",
    "BITOP NOT $s $k",
    "BITPOS $s 1",
    "BITPOS $s $n $n",
    "COPY $k $k",
    "COPY $k $k REPLACE",
    "DECR $s",
    "DECRBY $s $i",
    "DECRBY $s $i",
    "DEL $k",
    "DEL $k $k $k",
    "ECHO $v",
    "EXISTS $k $k",
    "EXPIRE $k $t",
    "EXPIRE $k $t NX",
    "EXPIREAT $k $t",
    "GET $s",
    "GET $k",
    "GETBIT $s $o",
    "GETDEL $s",
    "GETEX $s PERSIST",
    "GETEX $s EX $t",
    "GETEX $s",
    "GETRANGE $s $n $n",
    "GETSET $s $v",
    "HDEL $h $f $f",
    "HEXISTS $h $f",
    "HGET $h $f",
    "HGETALL $h",
    "HINCRBY $h $f $i",
    "HINCRBY $h $f $i",
    "HINCRBY $h $f $i",
    "HINCRBYFLOAT $h $f $d",
    "HKEYS $h",
    "HLEN $h",
    "HMGET $h $f $f $f",
    "HMSET $h $f $v $f $i",
    "DEL one; HSET one $f $v; HRANDFIELD one",
    "HRANDFIELD none",
    "HSET $h $f $v",
    "HSET $h $f $i $f $v",
    "HSETNX $h $f $v",
    "HSTRLEN $h $f",
    "HVALS $h",
    "INCR $s",
    "INCR $s",
    "INCRBY $s $i",
    "INCRBY $s $i",
    "INCRBY $s $i",
    "INCRBYFLOAT $s $d",
    "LINDEX $l $n",
    "LINSERT $l BEFORE $m $v",
    "LLEN $l",
    "LMOVE $l $l LEFT RIGHT",
    "LPOP $l",
    "LPUSH $l $m $v",
    "LPUSHX $l $m",
    "LRANGE $l $n $n",
    "LRANGE $l 0 -1",
    "LREM $l $n $m",
    "LSET $l $n $v",
    "LTRIM $l $n $n",
    "MGET $s $s $k none",
    "MSET $s $v $s $i",
    "MSETNX $s $v $s $v",
    "PERSIST $k",
    "PEXPIRE $k $t",
    "PEXPIREAT $k $t XX",
    "PFADD $p $m $m",
    "PFCOUNT $p $p",
    "PFMERGE $p $p $p",
    "PSETEX $s $t $v",
    "RENAME $k $k",
    "RENAMENX $k $k",
    "RESTORE $s 0 $w REPLACE",
    "RESTORE $k 0 $w ABSTTL",
    "RESTORE $k 0 $v",
    "RPOP $l",
    "RPOPLPUSH $l $l",
    "RPUSH $l $m $m $v",
    "RPUSHX $l $v",
    "SADD $e $m $m $i",
    "SADD $e $v",
    "SCARD $e",
    "SDIFF $e $e",
    "SDIFFSTORE $e $e $e",
    // There is none: each of the three stays in its own.
    "SELECT 99",
    "SET $s $i",
    "SET $s $i",
    "SET $s $v",
    "SET $s $v NX",
    "SET $k $v XX GET",
    "SET $s $v EX $t",
    "SET $s $v KEEPTTL GET",
    "SETBIT $s $o 1",
    "SETEX $s $t $v",
    "SETNX $s $v",
    "SETRANGE $s $o $v",
    "SINTER $e $e",
    "SINTERCARD 2 $e $e",
    "SINTERSTORE $e $e $e",
    "SISMEMBER $e $m",
    "SMEMBERS $e",
    "SMISMEMBER $e $m $m",
    "SMOVE $e $e $m",
    "DEL one; SADD one $v; SPOP one",
    "SPOP none",
    "DEL one; SADD one $v; SRANDMEMBER one",
    "SREM $e $m $m",
    "STRLEN $s",
    "SUBSTR $s $n $n",
    "SUNION $e $e",
    "SUNIONSTORE $e $e $e",
    "TOUCH $k $k",
    "TYPE $k",
    "UNLINK $k",
    "XACK $x group 1-1",
    "XADD $x $c-1 $f $v",
    "XADD $x NOMKSTREAM $c-2 $f $v",
    "XDEL $x $c-1",
    "XLEN $x",
    "XTRIM $x MAXLEN 3",
    "ZADD $z $d $m",
    "ZADD $z $d $m $d $m",
    "ZADD $z NX CH $d $m",
    "ZADD $z GT $d $m",
    "ZADD $z INCR $d $m",
    "ZADD $z XX INCR $d $m",
    "ZCARD $z",
    "ZCOUNT $z $d +inf",
    "ZDIFFSTORE $z 2 $z $z",
    "ZINCRBY $z $d $m",
    "ZINTERCARD 2 $z $z",
    "ZINTERSTORE $z 2 $z $z",
    "ZLEXCOUNT $z - +",
    "DEL one; ZADD one $d $m; ZRANDMEMBER one",
    "ZRANGE $z 0 -1",
    "ZRANGE $z $n $n REV",
    "ZRANGE $z 0 -1 WITHSCORES",
    "ZRANGEBYLEX $z [m1 [m4",
    "ZRANGEBYSCORE $z -inf $d",
    "ZRANGEBYSCORE $z -inf $d WITHSCORES",
    "ZRANGESTORE $z $z 0 2",
    "ZREM $z $m $m",
    "ZREMRANGEBYLEX $z [m1 [m2",
    "ZREMRANGEBYRANK $z $n $n",
    "ZREMRANGEBYSCORE $z $d $d",
    "ZREVRANGE $z 0 -1",
    "ZREVRANGE $z 0 -1 WITHSCORES",
    "ZREVRANGEBYLEX $z [m4 [m1",
    "ZREVRANGEBYSCORE $z $d -inf",
    "ZSCORE $z $m",
    "ZUNIONSTORE $z 2 $z $z",
];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "7",
    "4503599627370496",
    "9007199254740990",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740991",
    "-9007199254740992",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775800",
    "-9223372036854775808",
    "18446744073709551615",
    "abc",
    "1.5",
    "",
    " 1",
    "01",
];
const DOUBLES: &[&str] = &[
    "0",
    "1",
    "-1.5",
    "0.1",
    "3.14159265358979",
    "1e300",
    "inf",
    "-inf",
    "x",
];
const TIMES: &[&str] = &[
    "-1",
    "0",
    "100000",
    "9999999999",
    "99999999999999",
    "9223372036854775807",
    "x",
];

/// A random branch: its commands, the name first.
pub(crate) fn branch(random: &mut Random) -> Vec<Vec<Vec<u8>>> {
    let mut commands = Vec::new();
    for _ in 0..=random.below(5) {
        let template = random.pick(TEMPLATES);
        for command in template.split("; ") {
            commands.push(command.split(' ').map(|word| fill(random, word)).collect());
        }
    }
    commands
}

fn fill(random: &mut Random, word: &str) -> Vec<u8> {
    let Some(kind) = word.strip_prefix('$') else {
        return word.as_bytes().to_vec();
    };
    let text = match kind {
        "v" => return value(random),
        // Of the string x, by Redis 7.0.
        "w" => return b"\x00\x01x\n\x00\"\x80\x86_\xbd\xe8H\xd0".to_vec(),
        "m" => format!("m{}", random.below(6)),
        "f" => format!("f{}", random.below(4)),
        "i" => random.pick(INTEGERS).to_owned(),
        "n" => (random.below(8) as i64 - 4).to_string(),
        "o" => random.below(100).to_string(),
        "d" => random.pick(DOUBLES).to_owned(),
        "t" => random.pick(TIMES).to_owned(),
        id if id.starts_with('c') => format!("{}{}", random.below(20), &id[1..]),
        kind => {
            let kind = match kind == "k" || random.chance(4) {
                true => random.pick(&["s", "l", "h", "e", "z", "x", "p"]),
                false => kind,
            };
            format!("{kind}{}", random.below(2))
        }
    };
    text.into_bytes()
}

fn value(random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => random.pick(INTEGERS).as_bytes().to_vec(),
        1 => vec![b'x'; random.below(300)],
        2 => (0..random.below(20))
            .map(|_| random.below(256) as u8)
            .collect(),
        _ => format!("m{}", random.below(6)).into_bytes(),
    }
}
