//! The second store: a folder, filled in the background and bounded like everything else.

mod packed;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll::bounded::{ByteCap, Cap, Derived, History, HistoryCaps};

use crate::key::ImageKey;

/// Images as files. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: Arc<PathBuf>,
    index: Arc<Mutex<History<ImageKey, (), Trimmed>>>,
    delay: Duration,
    largest: ByteCap,
}

/// Keys that the index has let go and whose files have to follow.
#[derive(Debug, Default)]
struct Trimmed(Vec<ImageKey>);

impl Derived<ImageKey, ()> for Trimmed {
    fn added(&mut self, _key: &ImageKey, _event: &()) {}

    fn removed(&mut self, key: &ImageKey, _event: &()) {
        self.0.push(key.clone());
    }
}

impl Store {
    /// An empty store of at most `images`, in a folder that is emptied first: the index is not kept over a restart.
    pub(crate) fn open(folder: PathBuf, images: Cap, largest: ByteCap, delay: Duration) -> io::Result<Self> {
        let folder = folder.join("images");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&folder)?,
        }
        let caps = HistoryCaps {
            events: images,
            batch: Cap::new(images.get().div_ceil(100)).unwrap_or(images),
            per_key: Cap::of::<1>(),
            bytes: ByteCap::of::<{ 1 << 30 }>(),
        };
        let index = History::deriving("stored", caps, Trimmed::default());
        Ok(Self { folder: Arc::new(folder), index: Arc::new(Mutex::new(index)), delay, largest })
    }

    /// The image, if it is there.
    pub(crate) async fn read(&self, key: &ImageKey) -> Option<Bytes> {
        self.index.lock().of(key).next()?;
        let file = tokio::fs::read(self.folder.join(key.file())).await.ok()?;
        let largest = self.largest.get();
        tokio::task::spawn_blocking(move || packed::unpack(file, largest)).await.ok()?
    }

    /// Keeps an image, and drops the files of those that have to go for it.
    ///
    /// Cancel safe: what is half written has a name that nobody reads.
    pub(crate) async fn write(&self, key: ImageKey, image: Bytes) -> io::Result<()> {
        tokio::time::sleep(self.delay).await;
        let file = self.folder.join(key.file());
        // No key begins with a full stop.
        let half = self.folder.join(format!(".{}", key.file()));
        let bytes = image.len() as u64;
        let packing = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            packed::pack(&image, || started.elapsed())
        });
        tokio::fs::write(&half, packing.await.map_err(io::Error::other)?).await?;
        tokio::fs::rename(half, file).await?;
        let trimmed = {
            let mut index = self.index.lock();
            index.push(key.clone(), (), bytes).map_err(io::Error::other)?;
            std::mem::take(&mut index.derived_mut().0)
        };
        for gone in trimmed.into_iter().filter(|gone| *gone != key) {
            tokio::fs::remove_file(self.folder.join(gone.file())).await?;
        }
        Ok(())
    }
}
