//! The filesystem's key (spec 10 §15.1): fields and cryptography are [`crate::crypto::Crypt`]; here it becomes a section.

use crate::crypto::Crypt;
use crate::error::Result;
use crate::superblock::sections::{SectionBody, SectionType};

impl SectionBody for Crypt {
    const TYPE: SectionType = SectionType::CRYPT;

    fn decode(payload: &[u8]) -> Result<Self> {
        Crypt::decode(payload)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        Crypt::encode(self, out);
    }
}
