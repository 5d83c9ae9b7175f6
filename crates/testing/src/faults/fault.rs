//! What can go wrong, as a value that can be written on a command line.

use std::fmt;
use std::str::FromStr;

/// What goes wrong in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// One call that changes something; calls are counted from 1.
    Call {
        /// Whose calls are counted.
        whose: Whose,
        /// What happens to it.
        blow: Blow,
        /// Which one.
        number: usize,
    },
    /// Every call that changes something, the first time it is made.
    Each {
        /// Whose calls.
        whose: Whose,
        /// What happens to them.
        blow: Blow,
    },
    /// Every watch.
    Watch(Disturbance),
    /// The program ends after this call, and the next one is shown lists from the past.
    Past(usize),
    /// Two programs do the same work at the same time, as when one has lost its lease and does not know yet.
    Two,
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The manager.
    Manager,
    /// The programs in pods.
    Pods,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blow {
    /// The program ends before it is made.
    CrashBefore,
    /// It is made, and the program ends before it knows.
    CrashAfter,
    /// 409.
    Conflict,
    /// 429 with `Retry-After`.
    TooMany,
    /// 500.
    Internal,
    /// It is made, and the answer does not arrive.
    Lost,
}

/// What happens to a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disturbance {
    /// It ends in the middle.
    Cut,
    /// It ends with 410, so that everything is listed anew.
    Gone,
    /// Events are not seen, until everything is listed anew.
    Missed,
    /// Events come late, in order, and each watch at a pace of its own.
    Late,
    /// Events of different objects come in another order.
    Shuffled,
}

const BLOWS: [(Blow, &str); 6] = [
    (Blow::CrashBefore, "crash-before"),
    (Blow::CrashAfter, "crash-after"),
    (Blow::Conflict, "conflict"),
    (Blow::TooMany, "too-many"),
    (Blow::Internal, "internal"),
    (Blow::Lost, "lost"),
];

const DISTURBANCES: [(Disturbance, &str); 5] = [
    (Disturbance::Cut, "cut"),
    (Disturbance::Gone, "gone"),
    (Disturbance::Missed, "missed"),
    (Disturbance::Late, "late"),
    (Disturbance::Shuffled, "shuffled"),
];

/// Before the name of what happens to calls of pods.
const PODS: &str = "pods-";

impl Blow {
    /// Those after which the program goes on.
    pub const ANSWERS: [Self; 4] = [Self::Conflict, Self::TooMany, Self::Internal, Self::Lost];

    fn name(self) -> &'static str {
        BLOWS.iter().find(|(blow, _)| *blow == self).map_or("", |(_, name)| name)
    }
}

impl Disturbance {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cut, Self::Gone, Self::Missed, Self::Late, Self::Shuffled];

    fn name(self) -> &'static str {
        DISTURBANCES.iter().find(|(disturbance, _)| *disturbance == self).map_or("", |(_, name)| name)
    }
}

impl Fault {
    /// Returns the class it belongs to, for tables.
    pub fn class(self) -> String {
        match self {
            Self::Call { whose, blow, .. } => format!("{whose}{}", blow.name()),
            Self::Past(_) => "past".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manager => "",
            Self::Pods => PODS,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("none"),
            Self::Call { whose, blow, number } => write!(f, "{whose}{}:{number}", blow.name()),
            Self::Each { whose, blow } => write!(f, "{whose}each-{}", blow.name()),
            Self::Watch(disturbance) => write!(f, "watch-{}", disturbance.name()),
            Self::Past(number) => write!(f, "past:{number}"),
            Self::Two => f.write_str("two"),
        }
    }
}

/// A text that names no fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown(String);

impl std::error::Error for Unknown {}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown fault {:?}: use none, two, past:N, watch-(cut|gone|missed|late|shuffled), \
             [pods-](crash-before|crash-after|conflict|too-many|internal|lost):N or [pods-]each-(conflict|too-many|internal|lost)",
            self.0
        )
    }
}

impl FromStr for Fault {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.to_owned());
        match text {
            "none" => return Ok(Self::Nothing),
            "two" => return Ok(Self::Two),
            _ => {}
        }
        if let Some(name) = text.strip_prefix("watch-") {
            let found = DISTURBANCES.iter().find(|(_, known)| *known == name);
            return found.map(|(disturbance, _)| Self::Watch(*disturbance)).ok_or_else(unknown);
        }
        let (whose, rest) = match text.strip_prefix(PODS) {
            Some(rest) => (Whose::Pods, rest),
            None => (Whose::Manager, text),
        };
        let blow =
            |name: &str| BLOWS.iter().find(|(_, known)| *known == name).map(|(blow, _)| *blow).ok_or_else(unknown);
        if let Some(name) = rest.strip_prefix("each-") {
            return Ok(Self::Each { whose, blow: blow(name)? });
        }
        let (name, number) = rest.split_once(':').ok_or_else(unknown)?;
        let number = number.parse().map_err(|_| unknown())?;
        match name {
            "past" => Ok(Self::Past(number)),
            name => Ok(Self::Call { whose, blow: blow(name)?, number }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_is_written() {
        let mut all = vec![Fault::Nothing, Fault::Two, Fault::Past(3)];
        all.extend(Disturbance::ALL.map(Fault::Watch));
        for whose in [Whose::Manager, Whose::Pods] {
            all.extend(BLOWS.map(|(blow, _)| Fault::Call { whose, blow, number: 17 }));
            all.extend(Blow::ANSWERS.map(|blow| Fault::Each { whose, blow }));
        }
        for fault in all {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        assert!("crash-after:x".parse::<Fault>().is_err() && "watch-loud".parse::<Fault>().is_err());
        assert!("nonsense".parse::<Fault>().unwrap_err().to_string().contains("crash-after"));
    }
}
