//! The second store, behind the cache in memory: a folder that is filled in the background, with a cap on its images.

mod packed;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll::bounded::{ByteCap, Cap, History, HistoryCaps, HistoryIndex};

use crate::key::ImageKey;

/// Images as files. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: Arc<PathBuf>,
    /// Until when each image is fresh.
    index: Arc<Mutex<History<ImageKey, Instant, Trimmed>>>,
    /// Waits before each write, for tests of slow disks.
    delay: Duration,
    /// The largest image that is read back.
    largest: ByteCap,
}

/// Keys that the index has dropped and whose files are to be removed.
#[derive(Debug, Default)]
struct Trimmed(VecDeque<ImageKey>);

impl HistoryIndex<ImageKey, Instant> for Trimmed {
    fn added(&mut self, _key: &ImageKey, _fresh_until: &Instant) {}

    fn removed(&mut self, key: &ImageKey, _fresh_until: &Instant) {
        self.0.push_back(key.clone());
    }
}

/// Marks the folder beside it as made by this program.
const MARKER: &str = ".image-proxy";

impl Store {
    /// An empty store of at most `images` images, in the folder `images` of `folder`. If an earlier run has made that folder, it
    /// is removed first, because the index does not survive a restart. A folder without our marker beside it is an error.
    pub(crate) fn open(folder: PathBuf, images: Cap, largest: ByteCap, delay: Duration) -> io::Result<Self> {
        let (marker, folder) = (folder.join(MARKER), folder.join("images"));
        if folder.exists() {
            if !marker.is_file() {
                let text = format!("{} was not made by this program: move it away", folder.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        std::fs::write(marker, "The folder \"images\" beside this file belongs to image-proxy, which empties it.\n")?;
        let caps = HistoryCaps {
            events: images,
            batch: Cap::new(images.get().div_ceil(100)).unwrap_or(images),
            per_key: Cap::of::<1>(),
            bytes: ByteCap::of::<{ 1 << 30 }>(),
        };
        let index = History::with_index("stored", caps, Trimmed::default());
        Ok(Self { folder: Arc::new(folder), index: Arc::new(Mutex::new(index)), delay, largest })
    }

    /// The image, and for how long it is still fresh; `None` when it is missing or stale.
    pub(crate) async fn read(&self, key: &ImageKey) -> Option<(Bytes, Duration)> {
        let fresh_until = *self.index.lock().events_of(key).next()?.1;
        let fresh_for = fresh_until.checked_duration_since(Instant::now()).filter(|time| !time.is_zero())?;
        let file = tokio::fs::read(self.folder.join(key.file())).await.ok()?;
        let largest = self.largest.get();
        let image = tokio::task::spawn_blocking(move || packed::unpack(file, largest)).await.ok()??;
        Some((image, fresh_for))
    }

    /// Stores an image that is fresh for a time, and removes the files of those that make room for it.
    ///
    /// The entry is added to the index before the file is written, so that no file is without an entry. An entry without a file
    /// counts as missing.
    ///
    /// Cancel safe: a partly written file has a name that is not read, and is removed with its image.
    pub(crate) async fn write(&self, key: ImageKey, image: Bytes, fresh_for: Duration) -> io::Result<()> {
        tokio::time::sleep(self.delay).await;
        let [file, partial] = self.files(&key);
        let fresh_until = Instant::now() + fresh_for;
        self.index.lock().push(key, fresh_until, image.len() as u64).map_err(io::Error::other)?;
        let packing = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            packed::pack(&image, || started.elapsed())
        });
        tokio::fs::write(&partial, packing.await.map_err(io::Error::other)?).await?;
        tokio::fs::rename(partial, file).await?;
        self.remove_trimmed().await
    }

    /// Removes the files of what the index has dropped. The rest is left for the next write.
    ///
    /// Cancel safe.
    async fn remove_trimmed(&self) -> io::Result<()> {
        let mut failed = None;
        while let Some(gone) = self.next_trimmed() {
            for file in self.files(&gone) {
                match tokio::fs::remove_file(file).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(error),
                    Ok(()) | Err(_) => {}
                }
            }
            let mut index = self.index.lock();
            let trimmed = &mut index.index_mut().0;
            // Another write may have removed it meanwhile.
            if trimmed.front() == Some(&gone) {
                trimmed.pop_front();
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The next image whose files are to be removed. One that was stored again meanwhile is skipped.
    fn next_trimmed(&self) -> Option<ImageKey> {
        let mut index = self.index.lock();
        loop {
            let gone = index.index().0.front()?.clone();
            if index.events_of(&gone).next().is_none() {
                return Some(gone);
            }
            index.index_mut().0.pop_front();
        }
    }

    /// The file of an image, and the file in which it is written first. No key begins with a full stop, so they differ.
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

    const HOUR: Duration = Duration::from_secs(3600);

    /// A folder that this program did not make is left alone; one that it made is emptied.
    #[tokio::test]
    async fn only_its_own_folder_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("images/holiday.jpg");
        std::fs::create_dir(folder.path().join("images")).unwrap();
        std::fs::write(&theirs, "sea").unwrap();
        let open = || Store::open(folder.path().into(), Cap::of::<9>(), ByteCap::of::<{ 1 << 20 }>(), Duration::ZERO);
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&theirs).unwrap(), b"sea");
        std::fs::remove_dir_all(folder.path().join("images")).unwrap();
        let image = Bytes::from_static(b"pixels");
        open().unwrap().write(key(1), image, HOUR).await.unwrap();
        assert_eq!(files(&open().unwrap()), 0);
    }

    /// An image is read for as long as it is fresh.
    #[tokio::test]
    async fn an_image_that_is_not_fresh_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, 9);
        store.write(key(1), Bytes::from_static(b"pixels"), HOUR).await.unwrap();
        let (image, fresh_for) = store.read(&key(1)).await.unwrap();
        assert!(image == "pixels" && fresh_for <= HOUR && fresh_for > HOUR / 2);
        store.write(key(1), Bytes::from_static(b"pixels"), Duration::ZERO).await.unwrap();
        assert_eq!(store.read(&key(1)).await, None);
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
            store.write(key(nth), image.clone(), HOUR).await.unwrap();
        }
        assert_eq!(files(&store), 1_000);
        // Of the next batch one is gone already, and one cannot be removed, for it is a folder.
        std::fs::remove_file(store.folder.join(key(2).file())).unwrap();
        std::fs::remove_file(store.folder.join(key(4).file())).unwrap();
        std::fs::create_dir(store.folder.join(key(4).file())).unwrap();
        store.write(key(1_000), image.clone(), HOUR).await.unwrap_err();
        assert_eq!(files(&store), 1_000 - 10 + 1 + 1, "the other nine are gone");
        assert_eq!(store.read(&key(1_000)).await.unwrap().0, image);
        assert_eq!(store.read(&key(3)).await, None);
        // Given up at every point that a write can be given up at.
        for nth in 2_000..2_300 {
            let mut writing = Box::pin(store.write(key(nth), image.clone(), HOUR));
            for _ in 0..nth % 7 {
                if futures::poll!(writing.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        for nth in 3_000..4_000 {
            store.write(key(nth), image.clone(), HOUR).await.unwrap();
        }
        assert!(files(&store) <= 1_000 + 1, "{}", files(&store));
    }
}
