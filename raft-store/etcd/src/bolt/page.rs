//! Single pages.

pub const PAGE_BYTES: usize = 4096;
pub const HEAD_BYTES: usize = 16;
pub const ELEMENT_BYTES: usize = 16;

/// The page that names the buckets.
pub const ROOT: u64 = 3;
const FREE_LIST: u64 = 2;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE: u16 = 0x10;
/// An element of a leaf that is a bucket.
const BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// A meta page; bbolt takes the one of the later transaction, whose number is the page's here.
pub fn meta(number: u64, pages: u64) -> Vec<u8> {
    let mut meta = vec![];
    let page_bytes = u32::try_from(PAGE_BYTES).expect("it is small");
    for word in [MAGIC, VERSION, page_bytes, 0] {
        meta.extend(word.to_le_bytes());
    }
    let sequence = 0;
    for word in [ROOT, sequence, FREE_LIST, pages, number] {
        meta.extend(word.to_le_bytes());
    }
    let sum = fnv1a(&meta);
    meta.extend(sum.to_le_bytes());
    let mut page = head(number, META, 0, 0);
    page.extend(meta);
    page.resize(PAGE_BYTES, 0);
    page
}

/// The list of free pages, which is empty.
pub fn no_free_pages() -> Vec<u8> {
    let mut page = head(FREE_LIST, FREE, 0, 0);
    page.resize(PAGE_BYTES, 0);
    page
}

/// How large a leaf is.
pub struct Measured(usize);

impl Measured {
    /// With this item alone, which may be larger than a page.
    pub fn of(key: &[u8], value: &[u8]) -> Self {
        Measured(HEAD_BYTES + size(key, value))
    }

    /// Adds an item if it fits into the page.
    pub fn takes(&mut self, key: &[u8], value: &[u8]) -> bool {
        let with = self.0 + size(key, value);
        let fits = with <= PAGE_BYTES;
        if fits {
            self.0 = with;
        }
        fits
    }

    /// How many pages it is.
    pub fn pages(&self) -> u64 {
        self.0.div_ceil(PAGE_BYTES) as u64
    }
}

/// A leaf that is being filled. What fits into it is said by the same measure as when it was laid out.
pub struct Leaf {
    number: u64,
    measured: Option<Measured>,
    /// Flags, bytes of the key, bytes of the value.
    elements: Vec<(u32, u32, u32)>,
    data: Vec<u8>,
}

impl Leaf {
    pub fn new(number: u64) -> Self {
        Leaf {
            number,
            measured: None,
            elements: vec![],
            data: vec![],
        }
    }

    /// Whether another item fits.
    pub fn takes(&mut self, key: &[u8], value: &[u8]) -> bool {
        match &mut self.measured {
            Some(measured) => measured.takes(key, value),
            None => false,
        }
    }

    /// Adds the first item, or one that was found to fit.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.measured
            .get_or_insert_with(|| Measured::of(key, value));
        self.add(0, key, value);
    }

    /// Adds a bucket with its root; without one it is empty, and stands here itself.
    pub fn push_bucket(&mut self, name: &[u8], root: Option<u64>) {
        let mut value = root.unwrap_or(0).to_le_bytes().to_vec();
        let sequence = 0u64;
        value.extend(sequence.to_le_bytes());
        if root.is_none() {
            value.extend(head(0, LEAF, 0, 0));
        }
        self.add(BUCKET, name, &value);
    }

    fn add(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.elements.push((flags, length(key), length(value)));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    /// Its pages.
    pub fn finish(self) -> Vec<u8> {
        let bytes = HEAD_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len();
        let pages = bytes.div_ceil(PAGE_BYTES);
        let mut page = head(self.number, LEAF, self.elements.len(), pages - 1);
        let mut place = (self.elements.len() * ELEMENT_BYTES) as u32;
        for (flags, key, value) in self.elements {
            for word in [flags, place, key, value] {
                page.extend(word.to_le_bytes());
            }
            // Relative to the next element.
            place = place + key + value - ELEMENT_BYTES as u32;
        }
        page.extend(self.data);
        page.resize(pages * PAGE_BYTES, 0);
        page
    }
}

/// A branch that is being filled; its elements were found to fit into one page.
pub struct Branch {
    number: u64,
    elements: Vec<(u32, u64)>,
    data: Vec<u8>,
}

impl Branch {
    pub fn new(number: u64) -> Self {
        Branch {
            number,
            elements: vec![],
            data: vec![],
        }
    }

    /// Adds a page below it, by its first key.
    pub fn push(&mut self, key: &[u8], page: u64) {
        self.elements.push((length(key), page));
        self.data.extend_from_slice(key);
    }

    /// Its page.
    pub fn finish(self) -> Vec<u8> {
        let mut page = head(self.number, BRANCH, self.elements.len(), 0);
        let mut place = (self.elements.len() * ELEMENT_BYTES) as u32;
        for (key, below) in self.elements {
            page.extend(place.to_le_bytes());
            page.extend(key.to_le_bytes());
            page.extend(below.to_le_bytes());
            place = place + key - ELEMENT_BYTES as u32;
        }
        page.extend(self.data);
        page.resize(PAGE_BYTES, 0);
        page
    }
}

fn head(number: u64, flags: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut head = number.to_le_bytes().to_vec();
    let count = u16::try_from(count).expect("a page has room for a few hundred elements");
    let overflow = u32::try_from(overflow).expect("a value is smaller than a request");
    head.extend(flags.to_le_bytes());
    head.extend(count.to_le_bytes());
    head.extend(overflow.to_le_bytes());
    head
}

fn size(key: &[u8], value: &[u8]) -> usize {
    ELEMENT_BYTES + key.len() + value.len()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a record is smaller than a request, which is bounded")
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
