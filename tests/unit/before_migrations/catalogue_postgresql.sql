CREATE TABLE products (
  product_id TEXT COLLATE "C" NOT NULL,
  name TEXT NOT NULL,
  price NUMERIC(18, 6) NOT NULL,
  PRIMARY KEY (product_id)
);
CREATE TABLE windlass_loaded (
  sha256 TEXT NOT NULL,
  PRIMARY KEY (sha256)
);
