"""Scripts that complete a command line in bash, zsh and fish."""

import shlex
from collections.abc import Iterable

from .words import Command, Option, Value

NUMBERS = ("N", "X")
"""How values are called that are no files."""

BASH = """\
# Completes elsa-ext in bash; printed by: elsa-ext completion bash
_elsa_ext() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" command="" option="" words="" count=0 word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        if [[ $word == -* ]]; then
            option="$word" count=0
            continue
        fi
        case "$command $word" in
            {commands}) command="${{command:+$command }}$word" ;;
            *) count=$((count + 1)) ;;
        esac
    done
    if [[ $current == -* ]]; then
        case "$command" in
{options}
        esac
    else
        case "$command $option" in
{values}
        esac
        [[ -n $words ]] || case "$command" in
{places}
        esac
    fi
    # Without words of ours file names are completed.
    [[ -z $words ]] || compopt +o default 2>/dev/null
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _elsa_ext elsa-ext
"""

ZSH = """\
#compdef elsa-ext
# Completes elsa-ext in zsh; printed by: elsa-ext completion zsh
{functions}
if [[ $funcstack[1] == _elsa_ext ]]; then
    _elsa_ext "$@"
else
    compdef _elsa_ext elsa-ext
fi
"""

ZSH_GROUP = """\
{name}() {{
    local curcontext="$curcontext" state line
    local -a commands=(
{commands}
    )
    _arguments -C{options} \\
        '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $line[1] in
{cases}
            esac ;;
    esac
}}
"""


def bash(root: Command) -> str:
    """Return the script for bash."""
    commands, options, values, places = [], [], [], []
    for command in root.all():
        key = " ".join(command.words)
        if key:
            commands.append(f'"{" ".join(command.words[:-1])} {command.words[-1]}"')
        flags = " ".join(flag for option in command.options for flag in option.flags)
        options.append(f'            "{key}") words="{flags}" ;;')
        for option in command.options:
            if option.value is not None and option.value.choices:
                patterns = " | ".join(f'"{key} {flag}"' for flag in option.flags)
                once = "" if option.value.many else "((count)) || "
                values.append(f'            {patterns}) {once}words="{" ".join(option.value.choices)}" ;;')
        words = [below.words[-1] for below in command.commands]
        words += [choice for place in command.places for choice in place.choices]
        if words:
            places.append(f'            "{key}") words="{" ".join(words)}" ;;')
    parts = {"options": options, "values": values, "places": places}
    return BASH.format(commands=" | ".join(commands), **{name: "\n".join(lines) for name, lines in parts.items()})


def zsh(root: Command) -> str:
    """Return the script for zsh: one function for each command."""
    return ZSH.format(functions="\n".join(map(zsh_function, root.all())))


def zsh_function(command: Command) -> str:
    """Return the function that completes what follows the words of a command."""
    name = zsh_name(command)
    options = "".join(f" \\\n        {shlex.quote(spec)}" for option in command.options for spec in zsh_options(option))
    if not command.commands:
        places = "".join(
            f" \\\n        {shlex.quote(zsh_place(number, place))}"
            for number, place in enumerate(command.places, start=1)
        )
        return f"{name}() {{\n    _arguments{options}{places}\n}}\n"
    return ZSH_GROUP.format(
        name=name,
        options=options,
        commands="\n".join(f"        {shlex.quote(f'{below.words[-1]}:{below.help}')}" for below in command.commands),
        cases="\n".join(f"                {below.words[-1]}) {zsh_name(below)} ;;" for below in command.commands),
    )


def zsh_name(command: Command) -> str:
    """Return the name of a command's function."""
    return "_".join(["_elsa_ext", *command.words])


def zsh_options(option: Option) -> Iterable[str]:
    """Yield what ``_arguments`` takes for each spelling of an option."""
    text = escaped(option.help, r"\[]:")
    for flag in option.flags:
        yield f"{flag}[{text}]{'' if option.value is None else zsh_value(option.value, many=':*-*')}"


def zsh_place(number: int, place: Value) -> str:
    """Return what ``_arguments`` takes for the word in a place, or for all from there."""
    return f"{'*' if place.many else number}{zsh_value(place, many='')}"


def zsh_value(value: Value, many: str) -> str:
    """Return message and choices; ``many`` goes before them if there may be several words, up to an option."""
    action = f"({' '.join(value.choices)})" if value.choices else " " if value.name in NUMBERS else "_files"
    message = escaped(value.name, "\\:")
    return f"{many if value.many else ''}:{message}:{action}"


def escaped(text: str, special: str) -> str:
    """Return text with a backslash before each special character."""
    return "".join(f"\\{character}" if character in special else character for character in text)


def fish(root: Command) -> str:
    """Return the script for fish."""
    lines = ["# Completes elsa-ext in fish; printed by: elsa-ext completion fish"]
    for command in root.all():
        here = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
        names = " ".join(below.words[-1] for below in command.commands)
        if names:
            first = f"{here}; and " if here else ""
            none_yet = shlex.quote(f"{first}not __fish_seen_subcommand_from {names}")
            lines += [fish_line(none_yet, f"-f -a {below.words[-1]}", below.help) for below in command.commands]
            here = f"{first}not __fish_seen_subcommand_from {names}"
        for option in command.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            lines.append(fish_line(shlex.quote(here), f"{flags}{fish_value(option.value)}", option.help))
        lines += [
            fish_line(shlex.quote(here), f"-f -a {shlex.quote(' '.join(place.choices))}", place.name)
            for place in command.places
            if place.choices
        ]
    return "\n".join(lines) + "\n"


def fish_line(condition: str, what: str, text: str) -> str:
    """Return one completion."""
    return f"complete -c elsa-ext -n {condition} {what} -d {fish_quoted(text)}"


def fish_value(value: Value | None) -> str:
    """Return what an option takes: nothing, one of its choices, or a file."""
    if value is None:
        return ""
    if value.choices:
        return f" -x -a {shlex.quote(' '.join(value.choices))}"
    return " -x" if value.name in NUMBERS else " -r"


def fish_quoted(text: str) -> str:
    """Return text between quotes as fish reads them."""
    return "'" + escaped(text, "\\'") + "'"
