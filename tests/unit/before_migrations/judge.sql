CREATE TABLE judge_schema (
  version INTEGER NOT NULL
);
CREATE TABLE problems (
  id BIGINT NOT NULL,
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE problem_versions (
  problem_id BIGINT NOT NULL,
  version BIGINT NOT NULL,
  meta BLOB NOT NULL,
  statement BLOB NOT NULL,
  testdata VARCHAR(64) NOT NULL,
  testdata_size BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (problem_id, version)
);
CREATE INDEX problem_versions_testdata ON problem_versions (testdata);
CREATE TABLE submissions (
  number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  problem_id BIGINT NOT NULL,
  version BIGINT NOT NULL,
  language INTEGER NOT NULL,
  source VARCHAR(64) NOT NULL,
  priority INTEGER NOT NULL,
  labels BLOB NOT NULL,
  state VARCHAR(8) NOT NULL,
  generation BIGINT NOT NULL,
  job_id TEXT,
  verdict VARCHAR(3),
  score FLOAT,
  reason BLOB,
  attempts BLOB,
  submitted_at BIGINT NOT NULL,
  judged_at BIGINT
);
CREATE INDEX submissions_state ON submissions (state, problem_id);
CREATE INDEX submissions_source ON submissions (source);
CREATE INDEX submissions_problem ON submissions (problem_id, number);
CREATE TABLE cases (
  submission BIGINT NOT NULL,
  task INTEGER NOT NULL,
  number INTEGER NOT NULL,
  status VARCHAR(3) NOT NULL,
  time_ms FLOAT NOT NULL,
  memory_kib BIGINT NOT NULL,
  exit_code BIGINT,
  stdout BLOB NOT NULL,
  stderr BLOB NOT NULL,
  PRIMARY KEY (submission, task, number)
);
CREATE TABLE outbox (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  submission BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  spec BLOB NOT NULL,
  job_id TEXT,
  superseded BOOLEAN NOT NULL,
  CONSTRAINT outbox_generation UNIQUE (submission, generation)
);
CREATE TABLE answers (
  "key" BLOB NOT NULL,
  fingerprint BLOB NOT NULL,
  submission BIGINT NOT NULL,
  job_id TEXT,
  until BIGINT NOT NULL,
  PRIMARY KEY ("key")
);
CREATE INDEX answers_until ON answers (until);
CREATE INDEX answers_submission ON answers (submission);
