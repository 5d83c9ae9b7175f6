//! Which host users stand behind the users inside containers.

use crate::sandbox::IdMap;

/// First host id of containers when the node runs as root. High enough to meet no account: distributions and
/// `systemd-nspawn` stay below 1,879,048,192, `nobody` and 32-bit limits lie elsewhere.
const BASE: u32 = 1_900_000_000;
/// Ids a container can use, the customary 16 bits.
const COUNT: u32 = 65_536;

/// User that the host image and this executable run as inside, unless the pod says otherwise: numeric and not root, as
/// `runAsNonRoot` demands.
pub(crate) const UNPRIVILEGED: u32 = 65_532;

/// Finds out what this process can give its containers.
///
/// Root, with the whole range of ids, gives every container ids that belong to nobody. Anyone else can only give
/// their own id.
pub(crate) fn map() -> IdMap {
    let root = rustix::process::geteuid().is_root();
    let covered = |file: &str| std::fs::read_to_string(file).is_ok_and(|text| covers(&text, BASE, COUNT));
    if root && covered("/proc/self/uid_map") && covered("/proc/self/gid_map") {
        return IdMap::Range { base: BASE, count: COUNT };
    }
    IdMap::Own
}

/// Returns the host's user and group for id 0 inside, where files have to be given to containers at all.
pub(crate) fn container_root(map: IdMap) -> Option<(u32, u32)> {
    match map {
        IdMap::Range { base, .. } => Some((base, base)),
        IdMap::Own => None,
    }
}

/// Tells whether an id map (`inside outside count` per line) has all of `base..base + count`.
fn covers(map: &str, base: u32, count: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(length))) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        inside <= u64::from(base) && u64::from(base) + u64::from(count) <= inside + length
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_only_used_where_it_is_mapped() {
        assert!(covers("         0          0 4294967295\n", BASE, COUNT));
        assert!(!covers("0 100000 65536\n", BASE, COUNT));
        assert!(!covers("0 1000 1\n", BASE, COUNT));
        assert!(!covers("", BASE, COUNT));
    }
}
