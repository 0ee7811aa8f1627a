CREATE TABLE products (
  product_id TEXT NOT NULL,
  name TEXT NOT NULL,
  price TEXT NOT NULL,
  PRIMARY KEY (product_id)
);
CREATE TABLE windlass_loaded (
  sha256 TEXT NOT NULL,
  PRIMARY KEY (sha256)
);
