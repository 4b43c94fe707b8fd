//! The second store: a folder, filled in the background and bounded like everything else.

mod packed;

use std::collections::VecDeque;
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
struct Trimmed(VecDeque<ImageKey>);

impl Derived<ImageKey, ()> for Trimmed {
    fn added(&mut self, _key: &ImageKey, _event: &()) {}

    fn removed(&mut self, key: &ImageKey, _event: &()) {
        self.0.push_back(key.clone());
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
    /// The index knows of a file before there is one, so that no file is there that it does not know of; one that it knows
    /// of and is not there yet, or never came to be, is an image that is not in the store.
    ///
    /// Cancel safe: what is half written has a name that nobody reads, and goes with its image.
    pub(crate) async fn write(&self, key: ImageKey, image: Bytes) -> io::Result<()> {
        tokio::time::sleep(self.delay).await;
        let [file, half] = self.files(&key);
        self.index.lock().push(key, (), image.len() as u64).map_err(io::Error::other)?;
        let packing = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            packed::pack(&image, || started.elapsed())
        });
        tokio::fs::write(&half, packing.await.map_err(io::Error::other)?).await?;
        tokio::fs::rename(half, file).await?;
        self.follow().await
    }

    /// Removes the files of what the index has let go. What it does not get to is left for the next write.
    ///
    /// Cancel safe.
    async fn follow(&self) -> io::Result<()> {
        let mut failed = None;
        while let Some(gone) = self.next_gone() {
            for file in self.files(&gone) {
                match tokio::fs::remove_file(file).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(error),
                    Ok(()) | Err(_) => {}
                }
            }
            let mut index = self.index.lock();
            let trimmed = &mut index.derived_mut().0;
            // Another write may have been at it, too.
            if trimmed.front() == Some(&gone) {
                trimmed.pop_front();
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The next image to remove; one that has come in again meanwhile is none.
    fn next_gone(&self) -> Option<ImageKey> {
        let mut index = self.index.lock();
        loop {
            let gone = index.derived().0.front()?.clone();
            if index.of(&gone).next().is_none() {
                return Some(gone);
            }
            index.derived_mut().0.pop_front();
        }
    }

    /// Where an image lies, and where it is written: no key begins with a full stop.
    fn files(&self, key: &ImageKey) -> [PathBuf; 2] {
        let name = key.file();
        [self.folder.join(&name), self.folder.join(format!(".{name}"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &tempfile::TempDir, images: usize) -> Store {
        let largest = ByteCap::of::<{ 1 << 20 }>();
        Store::open(folder.path().into(), Cap::new(images).unwrap(), largest, Duration::ZERO).unwrap()
    }

    fn key(nth: usize) -> ImageKey {
        ImageKey::parse(&format!("/one/img-{nth}")).unwrap()
    }

    fn files(store: &Store) -> usize {
        std::fs::read_dir(&*store.folder).unwrap().count()
    }

    /// R-1, F-5: there are never more files than images that may be kept, also when a file cannot be removed or is gone
    /// already, and when writes end in the middle.
    #[tokio::test]
    async fn the_folder_holds_no_more_than_its_cap() {
        let folder = tempfile::tempdir().unwrap();
        // A batch of ten goes at a time.
        let store = store(&folder, 1_000);
        let image = Bytes::from(vec![7; 100]);
        for nth in 0..1_000 {
            store.write(key(nth), image.clone()).await.unwrap();
        }
        assert_eq!(files(&store), 1_000);
        // Of the next batch one is gone already, and one cannot be removed, for it is a folder.
        std::fs::remove_file(store.folder.join(key(2).file())).unwrap();
        std::fs::remove_file(store.folder.join(key(4).file())).unwrap();
        std::fs::create_dir(store.folder.join(key(4).file())).unwrap();
        store.write(key(1_000), image.clone()).await.unwrap_err();
        assert_eq!(files(&store), 1_000 - 10 + 1 + 1, "the other nine are gone");
        assert_eq!(store.read(&key(1_000)).await.unwrap(), image);
        assert_eq!(store.read(&key(3)).await, None);
        // Given up at every point that a write can be given up at.
        for nth in 2_000..2_300 {
            let mut writing = Box::pin(store.write(key(nth), image.clone()));
            for _ in 0..nth % 7 {
                if futures::poll!(writing.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        for nth in 3_000..4_000 {
            store.write(key(nth), image.clone()).await.unwrap();
        }
        assert!(files(&store) <= 1_000 + 1, "{}", files(&store));
    }
}
