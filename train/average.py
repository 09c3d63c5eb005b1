"""Average the weights of networks that set out from the same one: python -m train.average RUN RUN ... -o FOLDER.

Wortsman et al., "Model soups" (ICML 2022): the mean of two fine-tunings is often better than either.
"""

import argparse

from lrm4d.reconstruction.pretrained import load_pretrained, save_pretrained


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="runs, or other folders with config.json and model.safetensors")
    parser.add_argument("-o", "--output", required=True, help="the folder to write")
    arguments = parser.parse_args()
    models = [load_pretrained(folder) for folder in arguments.folders]
    if any(model.config != models[0].config for model in models):
        parser.error("the networks have different configurations; only equal ones can be averaged.")
    states = [model.state_dict() for model in models]
    mean = {name: sum(state[name] for state in states) / len(states) for name in states[0]}
    models[0].load_state_dict(mean)
    save_pretrained(models[0], arguments.output)


if __name__ == "__main__":
    main()
