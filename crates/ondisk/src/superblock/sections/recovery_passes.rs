//! When each recovery pass last ran, and how long it took (spec 80 §7.4). Informational; written by newer programs.

use crate::bytes::{PutLe, Reader, bits};
use crate::error::Result;
use crate::superblock::recovery_pass::RecoveryPass;
use crate::superblock::sections::{SectionBody, SectionType};
use crate::units::UnixSeconds;

/// What is known about one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassRun {
    /// When it last ran; 0 is never.
    pub last_run: UnixSeconds,
    /// How long it took, in the unit of the program that wrote it.
    pub last_runtime: u32,
    flags: u32,
}

impl PassRun {
    /// The pass may be repeated without a pause.
    pub fn no_rate_limit(&self) -> bool {
        bits(u64::from(self.flags), 0, 1) != 0
    }
}

/// The section: records by stable pass id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryPasses(pub Vec<PassRun>);

impl RecoveryPasses {
    /// The record of a pass; `None` if it has none.
    pub fn get(&self, pass: RecoveryPass) -> Option<&PassRun> {
        self.0.get(usize::from(pass.0))
    }
}

impl SectionBody for RecoveryPasses {
    const TYPE: SectionType = SectionType::RECOVERY_PASSES;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new("superblock section recovery_passes", payload);
        let mut runs = Vec::with_capacity(payload.len() / 16);
        while r.remaining() > 0 {
            runs.push(PassRun { last_run: UnixSeconds(r.u64()?), last_runtime: r.u32()?, flags: r.u32()? });
        }
        Ok(RecoveryPasses(runs))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for run in &self.0 {
            out.put_u64(run.last_run.0);
            out.put_u32(run.last_runtime);
            out.put_u32(run.flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_pass() {
        let mut payload = vec![0; 32];
        (payload[16], payload[24], payload[28]) = (7, 5, 1);
        let passes = RecoveryPasses::decode(&payload).unwrap();
        let run = passes.get(RecoveryPass(1)).unwrap();
        assert_eq!((run.last_run, run.last_runtime, run.no_rate_limit()), (UnixSeconds(7), 5, true));
        assert_eq!(passes.get(RecoveryPass(2)), None);
        let mut out = Vec::new();
        passes.encode(&mut out);
        assert_eq!(out, payload);
    }
}
