# make demo   the whole pipeline on the embedded phantom
# make winner   the winners' recipe at the demo's size, beside the demo's networks
# make elsewhere   the demo's models on phantoms of another hospital, in demo/elsewhere
# make test   lint, unit and integration tests; as root it installs what these need of the system
# make torture   hostile files and crashes ten times harder than make test, within an hour
# make clusters   installs and starts a Grid Engine and a Slurm of this machine
# make cluster   tests on these two
# make gpu   tests on a CUDA GPU
# make bench   speeds against the published way, memory and growth; EARLIER=FOLDER: against the build there
#   too; writes bench/results.md
# make bench-learning   the demo's recipe over seeds and arithmetics; writes bench/learning.md
# make bench-accuracy   what each ingredient of accuracy is worth; writes bench/accuracy.md
# make bench-gpu   training and features on a CUDA machine; writes bench/results-gpu.md
# make figures   the README's figures, from the demo
# make lock   renews requirements.lock from requirements.in

# The project's own environment; commands below find snakemake and the rest in it.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= python3.11
SOURCES = workflow tests profiles bench tools
# Tests on two cores at once. Those of a file share what they have made where that is a whole run;
# of such runs two leave the cores idle at times, and the longest must not be the last.
SIDE_BY_SIDE = --numprocesses 2 --dist worksteal
FILE_BY_FILE = --numprocesses 3 --dist loadfile --no-loadscope-reorder
LONGEST = $(addprefix tests/integration/test_,$(addsuffix .py,\
	kills artifacts real_ct finetuning full_disk rebuilds predict damage))
# Files, if there are, of the names that tests of hostile input and crashes have.
TORTURE_TESTS = $(wildcard $(addprefix tests/,$(addsuffix .py,\
	unit/data/dicom/test_hostile_* unit/data/test_accounting unit/models/test_checkpoint\
	unit/data/test_features_file unit/data/test_shards unit/data/test_tables\
	integration/test_hostile_* integration/test_kills integration/test_damage\
	integration/test_full_disk)))

# Why tests were skipped, for the end of make test.
SKIPPED = .pytest_cache/skipped

.PHONY: demo winner elsewhere test packages lint unit integration torture gpu cluster clusters bench bench-gpu \
	bench-learning bench-accuracy figures lock clean

.venv/installed: requirements.lock
	@echo "Setting up .venv: several GB to download the first time"
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --require-hashes -r requirements.lock
	touch $@

# Without a GPU two networks train side by side on a core each: faster than one after the other.
ON_THIS_MACHINE = --profile profiles/local --directory demo --quiet rules host --resources gpu=2 \
	--set-threads train_cnn=1 extract_features=1 activation=1

demo: .venv/installed
	snakemake $(ON_THIS_MACHINE) -- all
	@python -m tools.show_results demo

winner: .venv/installed
	snakemake $(ON_THIS_MACHINE) --configfile demo/config/winner.yaml -- all
	@python -m tools.show_results demo

# The models are those of the demo; the working directory needs nothing else of it.
elsewhere: demo
	python -m tools.make_cohort demo/elsewhere/cohort
	snakemake --profile profiles/local --directory demo/elsewhere --quiet rules host \
		--config validate=cohort models=../results/models/clotline.zip -- validate

test: packages lint unit integration
	@cat $(SKIPPED)/*.txt | sort | uniq -c | sort -rn | sed '1 i Skipped tests, and why:'
	@cat $(SKIPPED)/*.txt | grep -q . || echo "No test was skipped."

packages: .venv/installed
	@tests/system-packages.sh .venv/bin/python

lint: .venv/installed
	ruff check $(SOURCES)
	ruff format --check $(SOURCES)
	snakefmt --check Snakefile workflow/rules
	snakemake --lint --directory demo

unit: .venv/installed
	# Those of DICOM files start a process for each, which takes five times as long beside torch.
	CLOTLINE_SKIPPED=$(SKIPPED)/data.txt python -m pytest $(SIDE_BY_SIDE) tests/unit/data
	CLOTLINE_SKIPPED=$(SKIPPED)/unit.txt python -m pytest $(SIDE_BY_SIDE) \
		tests/unit --ignore tests/unit/data

integration: demo
	CLOTLINE_SKIPPED=$(SKIPPED)/integration.txt python -m pytest $(FILE_BY_FILE) \
		$(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/integration/test_*.py))

cluster: .venv/installed
	# Side by side: on a cluster one waits most of the time.
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/cluster

# Needs root, to mount small disks.
torture: .venv/installed
	CLOTLINE_TORTURE=10 CLOTLINE_NO_SKIP=1 python -m pytest $(FILE_BY_FILE) $(TORTURE_TESTS)

gpu: .venv/installed
	python -m pytest tests/gpu

# Needs root: it installs and starts both queueing systems on this machine.
clusters:
	tests/cluster/start-gridengine.sh
	tests/cluster/start-slurm.sh

# What is as good is seen on the demo's networks. EARLIER=FOLDER: beside the build in a checkout.
bench: demo
	python -m bench $(if $(EARLIER),--earlier $(EARLIER))

# On the demo's slices. Hours; goes on where it was stopped.
bench-learning: .venv/installed
	snakemake $(ON_THIS_MACHINE) -- \
		results/data/slices.parquet results/data/positives.h5
	python -m bench.learning

# A day or two of CPU time a ladder; goes on where it was stopped. The others where real data is.
bench-accuracy: .venv/installed
	python -m bench.accuracy phantom
	if [ -n "$$CLOTLINE_REAL" ]; then \
	    python -m bench.accuracy stage2 && python -m bench.accuracy semisynthetic; fi

bench-gpu: .venv/installed
	python -m bench.gpu

figures: demo
	python -m tools.make_figures demo docs/figures

lock: .venv/installed
	.venv/bin/pip install --quiet uv
	.venv/bin/uv pip compile --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --quiet --output-file requirements.lock requirements.in

clean:
	rm -rf demo/data demo/results demo/logs demo/benchmarks demo/.snakemake demo/.clotline
