"""`mixsolve completion`: a script that completes subcommands, options and files in a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve completion`."""
    parser.epilog = (
        "bash: source <(mixsolve completion bash). zsh: the same with zsh. fish: mixsolve "
        "completion fish | source. Put the line into ~/.bashrc, ~/.zshrc or "
        "~/.config/fish/config.fish to have it in every shell."
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell to write the script for")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from mixsolve.commands.main import option_words

    sys.stdout.write(script(args.shell, option_words()))
    return 0


def script(shell: str, options: Mapping[str, Sequence[str]]) -> str:
    """Return the script for a shell, from the options of each subcommand."""
    if shell == "fish":
        return _fish(options)
    begin = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return begin + _bash(options)


def _bash(options: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(
        f'        {name}) words="{" ".join(words)}" ;;' for name, words in options.items()
    )
    return f"""_mixsolve() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(options)} --help --version" -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    case "$current" in
        -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
        *) COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
}}
complete -o filenames -F _mixsolve mixsolve
"""


def _fish(options: Mapping[str, Sequence[str]]) -> str:
    lines = [f"complete -c mixsolve -n __fish_use_subcommand -a '{' '.join(options)}'"]
    for name, words in options.items():
        lines += [
            f"complete -c mixsolve -n '__fish_seen_subcommand_from {name}' -l {word[2:]}"
            for word in words
            if word.startswith("--")
        ]
    return "\n".join(lines) + "\n"
