//! The stores under comparison, each behind "commit this, durably".

use std::path::Path;
use std::sync::Arc;

use frazil_device::{Access, FileDevice, OpenOptions};
use frazil_journal::engine::driver::Driver;
use frazil_journal::engine::{Journal, Wait, Watermark};
use frazil_ondisk::BtreeId;
use frazil_ondisk::jset::EntryType;

/// A store that makes a 64-byte record durable.
pub trait Peer: Sync {
    /// Returns when record `n` is on stable storage.
    fn commit(&self, n: u64);

    /// Bytes written to the log so far, if the store says.
    fn bytes_written(&self) -> Option<u64> {
        None
    }
}

const VALUE: [u8; 56] = [7; 56];

/// Our journal on a file.
pub struct Frazil {
    journal: Arc<Journal>,
    _driver: Driver,
}

impl Frazil {
    pub fn open(dir: &Path) -> Frazil {
        let path = dir.join("journal");
        // Allocated in advance, as a formatted volume is.
        std::fs::write(&path, vec![0x55; 64 << 20]).expect("the directory can be written");
        std::fs::File::open(&path).and_then(|f| f.sync_all()).expect("the file can be flushed");
        let device = FileDevice::open(&path, OpenOptions::new(Access::ReadWrite)).expect("just made");
        let journal = crate::fixture::journal(Arc::new(device), 4096, 256 << 10);
        let _driver = Driver::start(&journal).expect("a thread");
        Frazil { journal, _driver }
    }
}

impl Peer for Frazil {
    fn commit(&self, n: u64) {
        let mut res = self.journal.reserve(9, Watermark::Normal, Wait::Forever).expect("there is room");
        res.push_entry(EntryType::BTREE_KEYS, BtreeId(0), 0, &[n, 7, 7, 7, 7, 7, 7, 7]);
        let seq = res.seq();
        drop(res);
        self.journal.flush_seq(seq).expect("the disk works");
    }

    fn bytes_written(&self) -> Option<u64> {
        Some(self.journal.status().counters.bytes_written)
    }
}

/// RocksDB: a put with `sync`, which flushes its write-ahead log with group commit.
pub struct Rocks(rocksdb::DB);

impl Rocks {
    pub fn open(dir: &Path) -> Rocks {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        Rocks(rocksdb::DB::open(&options, dir.join("rocks")).expect("an empty directory"))
    }
}

impl Peer for Rocks {
    fn commit(&self, n: u64) {
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        self.0.put_opt(n.to_be_bytes(), VALUE, &options).expect("the disk works");
    }
}

/// fjall: an insert, then persist.
pub struct Fjall(fjall::Database, fjall::Keyspace);

impl Fjall {
    pub fn open(dir: &Path) -> Fjall {
        let db = fjall::Database::builder(dir.join("fjall")).open().expect("an empty directory");
        let keys = db.keyspace("bench", fjall::KeyspaceCreateOptions::default).expect("a new keyspace");
        Fjall(db, keys)
    }
}

impl Peer for Fjall {
    fn commit(&self, n: u64) {
        self.1.insert(n.to_be_bytes(), VALUE).expect("the disk works");
        self.0.persist(fjall::PersistMode::SyncData).expect("the disk works");
    }
}

/// redb: a write transaction, durable at once as by default.
pub struct Redb(redb::Database);

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("bench");

impl Redb {
    pub fn open(dir: &Path) -> Redb {
        Redb(redb::Database::create(dir.join("redb")).expect("an empty directory"))
    }
}

impl Peer for Redb {
    fn commit(&self, n: u64) {
        let txn = self.0.begin_write().expect("a transaction");
        txn.open_table(TABLE)
            .and_then(|mut t| Ok(t.insert(n, &VALUE[..]).map(drop)?))
            .expect("the disk works");
        txn.commit().expect("the disk works");
    }
}
