PRAGMA application_id = 1095192408;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE activity (
	agentos TEXT NOT NULL, 
	what TEXT NOT NULL, 
	digest BIGINT NOT NULL, 
	seen BIGINT NOT NULL, 
	PRIMARY KEY (agentos, what, digest)
);
CREATE TABLE admissions (
	label TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (label, value)
);
INSERT INTO "admissions" VALUES('root','r');
INSERT INTO "admissions" VALUES('agent','a');
INSERT INTO "admissions" VALUES('tool','é‮🙂');
CREATE TABLE budgets (
	name TEXT NOT NULL, 
	definition TEXT NOT NULL, 
	since BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE cursors (
	agentos TEXT NOT NULL, 
	db TEXT NOT NULL, 
	data TEXT NOT NULL, 
	PRIMARY KEY (agentos, db)
);
INSERT INTO "cursors" VALUES('os','db','{"x": 1}');
CREATE TABLE layouts (
	metric TEXT NOT NULL, 
	layout TEXT NOT NULL, 
	PRIMARY KEY (metric)
);
INSERT INTO "layouts" VALUES('agentos_traces_total','{"labels": ["agentos", "root_kind"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_runs_total','{"labels": ["agentos", "root_kind", "root"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_runs_continued_total','{"labels": ["agentos", "root_kind", "root"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_run_errors_total','{"labels": ["agentos", "root_kind", "root", "error_type"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_run_duration_seconds','{"labels": ["agentos", "root_kind", "root"], "buckets": [100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000, 40000000, 60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000], "unit": 1000000}');
INSERT INTO "layouts" VALUES('agentos_run_llm_calls','{"labels": ["agentos", "root_kind", "root"], "buckets": [1, 2, 3, 5, 8, 13, 21, 34, 55, 100], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_run_cost_usd','{"labels": ["agentos", "root_kind", "root"], "buckets": [100000000000000, 300000000000000, 1000000000000000, 3000000000000000, 10000000000000000, 30000000000000000, 100000000000000000, 250000000000000000, 500000000000000000, 1000000000000000000, 2500000000000000000, 5000000000000000000, 10000000000000000000, 30000000000000000000, 100000000000000000000], "unit": 1000000000000000000}');
INSERT INTO "layouts" VALUES('agentos_llm_calls_total','{"labels": ["agentos", "root", "agent", "provider", "model"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_llm_call_errors_total','{"labels": ["agentos", "root", "agent", "provider", "model", "error_type"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_llm_calls_without_usage_total','{"labels": ["agentos", "root", "agent", "provider", "model"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_llm_call_duration_seconds','{"labels": ["agentos", "provider", "model"], "buckets": [100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000, 40000000, 60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000], "unit": 1000000}');
INSERT INTO "layouts" VALUES('agentos_llm_call_input_tokens','{"labels": ["agentos", "provider", "model"], "buckets": [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_llm_call_output_tokens','{"labels": ["agentos", "provider", "model"], "buckets": [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_llm_time_to_first_token_seconds','{"labels": ["agentos", "provider", "model"], "buckets": [100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000, 40000000, 60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000], "unit": 1000000}');
INSERT INTO "layouts" VALUES('agentos_llm_tokens_total','{"labels": ["agentos", "root", "agent", "provider", "model", "token_class"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_llm_cost_usd_total','{"labels": ["agentos", "root", "agent", "provider", "model", "token_class", "cost_source"], "buckets": [], "unit": 1000000000000000000}');
INSERT INTO "layouts" VALUES('agentos_llm_unpriced_tokens_total','{"labels": ["agentos", "provider", "model", "token_class"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_tool_calls_total','{"labels": ["agentos", "root", "agent", "tool"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_tool_call_errors_total','{"labels": ["agentos", "root", "agent", "tool", "error_type"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_tool_call_duration_seconds','{"labels": ["agentos", "tool"], "buckets": [100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000, 40000000, 60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000], "unit": 1000000}');
INSERT INTO "layouts" VALUES('agentos_spans_total','{"labels": ["agentos", "root", "agent", "span_kind"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_error_spans_total','{"labels": ["agentos", "root", "agent", "span_kind", "error_type"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_session_runs','{"labels": ["agentos"], "buckets": [1, 2, 3, 5, 8, 13, 21, 34, 55, 100], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_session_duration_seconds','{"labels": ["agentos"], "buckets": [100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000, 40000000, 60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000], "unit": 1000000}');
INSERT INTO "layouts" VALUES('agentos_session_cost_usd','{"labels": ["agentos"], "buckets": [100000000000000, 300000000000000, 1000000000000000, 3000000000000000, 10000000000000000, 30000000000000000, 100000000000000000, 250000000000000000, 500000000000000000, 1000000000000000000, 2500000000000000000, 5000000000000000000, 10000000000000000000, 30000000000000000000, 100000000000000000000], "unit": 1000000000000000000}');
INSERT INTO "layouts" VALUES('agentos_user_tokens_total','{"labels": ["agentos", "user"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_user_cost_usd_total','{"labels": ["agentos", "user"], "buckets": [], "unit": 1000000000000000000}');
INSERT INTO "layouts" VALUES('agentos_exporter_span_ingest_delay_seconds','{"labels": ["agentos"], "buckets": [100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 20000000, 40000000, 60000000, 120000000, 300000000, 600000000, 1800000000, 3600000000], "unit": 1000000}');
INSERT INTO "layouts" VALUES('agentos_exporter_hidden_spans_total','{"labels": ["agentos"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_exporter_orphan_spans_total','{"labels": ["agentos"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_exporter_ignored_traces_total','{"labels": ["agentos", "reason"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_exporter_ignored_values_total','{"labels": ["agentos", "field"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_exporter_source_resets_total','{"labels": ["agentos"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_exporter_series_limited_total','{"labels": ["metric", "label"], "buckets": [], "unit": 1}');
INSERT INTO "layouts" VALUES('agentos_exporter_label_values_shortened_total','{"labels": ["metric", "label"], "buckets": [], "unit": 1}');
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('format','agentos-exporter state');
CREATE TABLE series (
	metric TEXT NOT NULL, 
	labels TEXT NOT NULL, 
	value TEXT NOT NULL, 
	shown BOOLEAN NOT NULL, 
	PRIMARY KEY (metric, labels)
);
INSERT INTO "series" VALUES('agentos_tool_calls_total','["os", "r", "a", "\u00e9\u202e\ud83d\ude42"]','1',1);
INSERT INTO "series" VALUES('agentos_run_llm_calls','["os", "agent", "r"]','[[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 3]',0);
CREATE TABLE sessions (
	agentos TEXT NOT NULL, 
	digest BIGINT NOT NULL, 
	first BIGINT NOT NULL, 
	last BIGINT NOT NULL, 
	runs INTEGER NOT NULL, 
	cost TEXT NOT NULL, 
	PRIMARY KEY (agentos, digest)
);
CREATE TABLE spending (
	budget TEXT NOT NULL, 
	start BIGINT NOT NULL, 
	spent TEXT NOT NULL, 
	PRIMARY KEY (budget, start)
);
CREATE TABLE traces (
	agentos TEXT NOT NULL, 
	id TEXT NOT NULL, 
	db TEXT NOT NULL, 
	state INTEGER NOT NULL, 
	total_spans INTEGER NOT NULL, 
	nodes INTEGER NOT NULL, 
	created BIGINT NOT NULL, 
	"end" BIGINT NOT NULL, 
	changed BIGINT NOT NULL, 
	next_ask BIGINT NOT NULL, 
	asks INTEGER NOT NULL, 
	misses INTEGER NOT NULL, 
	hidden INTEGER NOT NULL, 
	root_kind TEXT NOT NULL, 
	reported BOOLEAN NOT NULL, 
	runs TEXT NOT NULL, 
	spans BLOB NOT NULL, 
	PRIMARY KEY (agentos, id, db)
);
INSERT INTO "traces" VALUES('os','t1','db',0,5,2,10,20,30,40,1,0,1,'agent',1,'{"9223372036854775813":{"root_kind":"agent","root":"r","llm_calls":4,"priced":0,"cost":0,"waiting":0,"settled":false}}',X'0100000000000000FFFFFFFFFFFFFFFF');
CREATE TABLE waiting (
	agentos TEXT NOT NULL, 
	trace TEXT NOT NULL, 
	span TEXT NOT NULL, 
	session BIGINT, 
	since BIGINT NOT NULL, 
	data TEXT NOT NULL, 
	PRIMARY KEY (agentos, trace, span)
);
CREATE INDEX traces_created ON traces (agentos, db, created);
CREATE INDEX traces_waiting ON traces (agentos, db, state, next_ask);
CREATE INDEX traces_ended ON traces (agentos, db, state, "end");
CREATE INDEX activity_seen ON activity (agentos, what, seen);
CREATE INDEX sessions_last ON sessions (agentos, last);
CREATE INDEX waiting_since ON waiting (agentos, since);
COMMIT;
