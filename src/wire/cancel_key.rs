//! The layout of the process ids that clients are told: the number of the instance, then that of the client.
//!
//! A load balancer may bring a CancelRequest to another instance of the fleet than the client's own. The number says
//! whom to ask; whether the key is right is decided by its secret alone, all of which is random. So two instances that
//! drew the same number cost a question more, and nothing else.

/// Bits of the client's part: above the most clients that `listen.clients_max` allows.
const CLIENT_BITS: u32 = 20;

/// Number of clients that an instance can tell apart.
pub(crate) const CLIENTS: u32 = 1 << CLIENT_BITS;

/// The lowest number of an instance. Linux has no process above 2^22, so none of our ids is a process of a server,
/// which a client could end instead of its own.
const LOWEST: u16 = 8;

/// One above the highest number of an instance: ids are positive.
const END: u16 = 1 << (31 - CLIENT_BITS);

/// The number of an instance, drawn at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceNumber(u16);

impl InstanceNumber {
    /// Of all numbers the one that `random` leads to.
    pub(crate) fn new(random: u64) -> Self {
        let numbers = u64::from(END - LOWEST);
        Self(LOWEST + u16::try_from(random % numbers).expect("a remainder of 16 bits"))
    }

    /// The instance whose client was told this id; `None` if no instance tells it.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let number = u16::try_from(pid >> CLIENT_BITS).ok()?;
        (LOWEST..END).contains(&number).then_some(Self(number))
    }

    /// The id of this instance's client with this number, below [`CLIENTS`].
    pub(crate) fn pid(self, client: u32) -> i32 {
        debug_assert!(client < CLIENTS);
        i32::from(self.0) << CLIENT_BITS | i32::try_from(client).expect("it has 20 bits")
    }

    /// As a number.
    pub(crate) fn get(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_id_is_a_process_of_a_server() {
        assert!(InstanceNumber::new(0).pid(0) > 1 << 22);
        assert_eq!(InstanceNumber::of(1 << 22), None);
        assert_eq!(InstanceNumber::of(-1), None);
        let last = InstanceNumber::new(u64::from(END - LOWEST - 1));
        assert_eq!(last.pid(CLIENTS - 1), i32::MAX);
        assert_eq!(InstanceNumber::of(i32::MAX), Some(last));
    }

    proptest! {
        #[test]
        fn every_id_names_its_instance(random: u64, client in 0..CLIENTS) {
            let number = InstanceNumber::new(random);
            prop_assert_eq!(InstanceNumber::of(number.pid(client)), Some(number));
        }
    }
}
