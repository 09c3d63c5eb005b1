# make demo    install into .venv, rebuild and refine the demo scene (about 3 minutes, then one)
# make test    install what the tests need and run them
# make lint    style
# make docs    the pictures of docs/ that need no data but the demo scene (and chromium for the screenshot)
#
# PYTHON=python3.12 chooses the interpreter (3.10 or later), PIP_FLAGS=... goes to every pip install.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out/demo
BIN = $(VENV)/bin
# Build isolation would hide the installed torch from setup.py, and fetch another one.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)
SETUP = setup.py pyproject.toml constraints.txt

.PHONY: demo test lint docs clean

demo: $(VENV)/.core
	$(BIN)/lrm4d demo -o $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/.dev
	$(BIN)/lrm4d demo -o $(OUT)
	cp $(OUT)/contact_sheet.png docs/demo.png
	$(BIN)/lrm4d render $(OUT)/scene.safetensors --times 0:1:0 --frames 60 --size 320 --fps 20 -o docs/demo.gif
	$(BIN)/lrm4d path "orbit:turns=0.6 + dolly:to=2; bullet:turns=0.5 + pedestal:by=0.5; arc:by=-70,rise=30,ease=in-out" \
		--scene $(OUT)/scene.safetensors -o docs/camera_paths/example.png
	for move in orbit arc spiral bullet dolly dolly_zoom zoom truck pedestal pan tilt roll static; do \
		$(BIN)/lrm4d path $$move --size 320x240 -o docs/camera_paths/$$move.png || exit 1; done
	$(BIN)/python -m eval.screenshots session $(OUT)/scene.safetensors lrm4d/scenes/demo -o docs/view.png
	$(BIN)/python -m eval.screenshots viewer $(OUT)/scene.safetensors lrm4d/scenes/demo -o docs/viewer.png
	$(BIN)/python -m data_tools.contact_sheet --seed 60 --scenes 12 --views 7 --setup random -o docs/world.png

clean:
	rm -rf $(VENV) build *.egg-info lrm4d/*.so lrm4d/*/*.so

$(VENV)/.core: $(SETUP)
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'lrm4d needs Python 3.10 or later: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and what else lrm4d needs into $(VENV) ..."
	$(INSTALL) setuptools wheel
	$(INSTALL) torch
	$(INSTALL) --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "Installing what the tests need into $(VENV) ..."
	$(INSTALL) --no-build-isolation -e ".[dev]"
	touch $@
