// The page's address: what follows the #, a path with options. It is what links hold, so that every view can be shared and gone back to.

// Reads the address: the parts of its path, and its options.
export function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), options: new URLSearchParams(query ?? "") };
}

// The address of a path.
export function to(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function go(address) {
  location.hash = address;
}
