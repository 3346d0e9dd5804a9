"""metarun completion: prints the script by which a shell completes metarun's words on TAB, and where to put it.

It completes verbs, groups, choices, keys and their values, run directories and files.

Examples:
    eval "$(metarun completion bash)"                               bash, for this shell
    metarun completion bash >> ~/.bashrc                            bash, for all
    metarun completion zsh > "${fpath[1]}/_metarun"                 zsh
    metarun completion fish > ~/.config/fish/completions/metarun.fish
"""

import argparse

BASH = """\
# Completion of metarun in bash. For all shells to come: metarun completion bash >> ~/.bashrc
# For this one: eval "$(metarun completion bash)"
_metarun() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <("$1" complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -o nospace -F _metarun metarun
"""
ZSH = """\
#compdef metarun
# Completion of metarun in zsh. For all shells to come, where compinit looks for it:
#     metarun completion zsh > "${fpath[1]}/_metarun"
# or after compinit in ~/.zshrc: eval "$(metarun completion zsh)"
_metarun() {
    local kind text means
    local -a whole whole_said part part_said
    while IFS=$'\\t' read -r kind text means; do
        if [[ $kind == whole ]]; then
            whole+=("$text")
            whole_said+=("$text${means:+  -- $means}")
        else
            part+=("$text")
            part_said+=("$text${means:+  -- $means}")
        fi
    done < <("${words[1]}" complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    local failed=1
    (( $#whole )) && compadd -l -d whole_said -a whole && failed=0
    (( $#part )) && compadd -l -S '' -d part_said -a part && failed=0
    return failed
}
if [[ ${funcstack[1]} == _metarun ]]; then
    _metarun "$@"
else
    compdef _metarun metarun
fi
"""
FISH = """\
# Completion of metarun in fish: metarun completion fish > ~/.config/fish/completions/metarun.fish
function __metarun_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test (count $current) -eq 0; and set current ''
    $words[1] complete fish $words[2..-1] $current 2>/dev/null
end
complete -c metarun -f -a '(__metarun_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A shell."""
    parser.add_argument("shell", choices=tuple(SCRIPTS), metavar="SHELL", help="bash, zsh or fish")


def main(args: argparse.Namespace) -> None:
    """Prints the script."""
    print(SCRIPTS[args.shell], end="")
