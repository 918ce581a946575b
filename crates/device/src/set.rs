//! The devices of one volume.
//!
//! Pointers in a volume's metadata name a device by its index in the superblock's member list (spec 10 §10). A
//! [`DeviceSet`] turns that index into the device. An index without a device belongs to a member that is missing or has
//! been removed; what that means is for the caller to say. This layer knows nothing of the format, so the index is a bare
//! byte here, and typed above.

use std::sync::Arc;

use crate::Device;

/// The devices of one volume by member index. Cheap to clone: the devices are shared.
#[derive(Clone, Debug, Default)]
pub struct DeviceSet {
    /// By index. At most 256 entries, as an index is a byte.
    devices: Vec<Option<Arc<dyn Device>>>,
}

impl DeviceSet {
    /// A set of no devices.
    pub fn new() -> DeviceSet {
        DeviceSet::default()
    }

    /// Puts a device at a member index. Returns the device that was there.
    pub fn insert(&mut self, index: u8, device: Arc<dyn Device>) -> Option<Arc<dyn Device>> {
        let index = usize::from(index);
        if self.devices.len() <= index {
            self.devices.resize(index + 1, None);
        }
        self.devices[index].replace(device)
    }

    /// Takes the device at a member index away.
    pub fn remove(&mut self, index: u8) -> Option<Arc<dyn Device>> {
        self.devices.get_mut(usize::from(index))?.take()
    }

    /// The device at a member index; `None` if that member is not present.
    pub fn get(&self, index: u8) -> Option<&Arc<dyn Device>> {
        self.devices.get(usize::from(index))?.as_ref()
    }

    /// How many devices are present.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether no device is present.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The devices that are present, by rising index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Arc<dyn Device>)> {
        (0..=u8::MAX).zip(&self.devices).filter_map(|(index, device)| Some((index, device.as_ref()?)))
    }
}

impl FromIterator<(u8, Arc<dyn Device>)> for DeviceSet {
    /// Of several devices with one index the last stays.
    fn from_iter<I: IntoIterator<Item = (u8, Arc<dyn Device>)>>(devices: I) -> DeviceSet {
        let mut set = DeviceSet::new();
        for (index, device) in devices {
            set.insert(index, device);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDevice;

    fn device(name: &str) -> Arc<dyn Device> {
        Arc::new(MemDevice::new(512).named(name))
    }

    #[test]
    fn finds_devices_by_index() {
        let mut set: DeviceSet = [(255, device("last")), (0, device("first"))].into_iter().collect();
        let names = |set: &DeviceSet| -> Vec<(u8, String)> {
            set.iter().map(|(index, device)| (index, device.name().to_string())).collect()
        };
        assert_eq!(names(&set), [(0, "first".to_owned()), (255, "last".to_owned())]);
        assert!(set.get(1).is_none());
        assert_eq!(
            set.insert(0, device("other")).map(|old| old.name().to_string()),
            Some("first".to_owned())
        );
        assert!(set.remove(255).is_some() && set.remove(255).is_none() && set.remove(7).is_none());
        assert_eq!(names(&set), [(0, "other".to_owned())]);
        assert_eq!((set.len(), set.is_empty(), DeviceSet::new().is_empty()), (1, false, true));
    }
}
