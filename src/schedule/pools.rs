//! Pools: how much of the machine is free. A stage starts when all it needs is.
//! Knows nothing of stages.

use crate::protocol::Execution;

/// What a machine offers, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    pub threads: u32,
    /// Bytes.
    pub memory: u64,
    /// Numbers of the free devices.
    pub gpus: Vec<u32>,
}

/// What one task holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    pub threads: u32,
    pub memory: u64,
    pub gpus: Vec<u32>,
}

/// A stage asks for more than the machine has.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("stage `{stage}` asks for {need} {what}, this machine offers {have}")]
pub struct Impossible {
    pub stage: String,
    pub what: &'static str,
    pub need: u64,
    pub have: u64,
}

impl Pools {
    /// What a stage takes of an empty machine. `kind_threads` 0 means all of it; more threads than
    /// there are mean all of them too.
    #[must_use]
    pub fn threads_for(&self, execution: &Execution, kind_threads: u32) -> u32 {
        match execution.threads.unwrap_or(kind_threads) {
            0 => self.threads,
            n => n.min(self.threads),
        }
    }

    /// # Errors
    /// The request can never be met.
    pub fn check(&self, stage: &str, execution: &Execution) -> Result<(), Impossible> {
        let memory = execution.memory.unwrap_or(0);
        let gpus = u64::from(execution.gpus);
        let all =
            [("bytes of memory", memory, self.memory), ("gpus", gpus, self.gpus.len() as u64)];
        match all.into_iter().find(|(_, need, have)| need > have) {
            None => Ok(()),
            Some((what, need, have)) => {
                Err(Impossible { stage: stage.to_owned(), what, need, have })
            }
        }
    }

    /// Takes a share, if all of it is free.
    pub fn take(&mut self, threads: u32, execution: &Execution) -> Option<Share> {
        let memory = execution.memory.unwrap_or(0);
        let gpus = execution.gpus as usize;
        if threads > self.threads || memory > self.memory || gpus > self.gpus.len() {
            return None;
        }
        self.threads -= threads;
        self.memory -= memory;
        Some(Share { threads, memory, gpus: self.gpus.drain(..gpus).collect() })
    }

    /// Gives a share back.
    pub fn give_back(&mut self, share: Share) {
        self.threads += share.threads;
        self.memory += share.memory;
        self.gpus.extend(share.gpus);
        self.gpus.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back_and_never_exceed_the_machine() {
        let full = Pools { threads: 4, memory: 100, gpus: vec![0, 1] };
        let mut pools = full.clone();
        let wants = Execution { memory: Some(60), gpus: 1, ..Execution::default() };
        let first = pools.take(2, &wants).expect("fits");
        assert_eq!(first.gpus, [0]);
        assert_eq!(pools.take(2, &wants), None, "memory is short");
        let rest = pools.take(2, &Execution::default()).expect("fits");
        assert_eq!(pools.take(1, &Execution::default()), None, "threads are short");
        pools.give_back(first);
        pools.give_back(rest);
        assert_eq!(pools, full);
    }

    #[test]
    fn the_impossible_is_refused_before_anything_runs() {
        let pools = Pools { threads: 2, memory: 10, gpus: vec![] };
        let wants = Execution { gpus: 1, ..Execution::default() };
        assert_eq!(
            pools.check("train", &wants).expect_err("no gpu").to_string(),
            "stage `train` asks for 1 gpus, this machine offers 0"
        );
        assert_eq!(pools.threads_for(&Execution::default(), 0), 2);
        let many = Execution { threads: Some(64), ..Execution::default() };
        assert_eq!(pools.threads_for(&many, 1), 2);
    }
}
