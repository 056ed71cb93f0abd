# Turns a JSON document into lines of path, tab, value: {"files": [{"path": "/a"}]} -> files/0/path<TAB>/a
# In values a line break, a tab and a backslash are written \n, \t and \\ so that each value is one line.
{ text = text $0 "\n" }

END {
    depth = 0; path[0] = ""; want_key = 0
    while (length(text)) {
        if (match(text, /^[ \t\r\n:]+/)) { text = substr(text, RLENGTH + 1); continue }
        c = substr(text, 1, 1)
        if (c == "{") { depth++; kind[depth] = "o"; want_key = 1; text = substr(text, 2) }
        else if (c == "[") { depth++; kind[depth] = "a"; at[depth] = 0; step[depth] = 0; want_key = 0; text = substr(text, 2) }
        else if (c == "}" || c == "]") { depth--; want_key = 0; text = substr(text, 2) }
        else if (c == ",") {
            text = substr(text, 2)
            if (kind[depth] == "o") want_key = 1
            else { at[depth]++; step[depth] = at[depth] }
        } else if (c == "\"") {
            match(text, /^"([^"\\]|\\.)*"/)
            if (RLENGTH < 2) exit 1
            token = substr(text, 2, RLENGTH - 2); text = substr(text, RLENGTH + 1)
            if (want_key) { step[depth] = plain(token); want_key = 0 } else emit(plain(token))
        } else if (match(text, /^[^],} \t\r\n]+/)) {
            emit(substr(text, 1, RLENGTH)); text = substr(text, RLENGTH + 1)
        } else exit 1
    }
}

function emit(value,   i, name) {
    name = step[1]
    for (i = 2; i <= depth; i++) name = name "/" step[i]
    print name "\t" value
}

# \uXXXX becomes UTF-8; pairs of surrogates, which no name or path needs, become a question mark.
function plain(s,   out, c, code) {
    out = ""
    while (match(s, /\\./)) {
        out = out substr(s, 1, RSTART - 1); c = substr(s, RSTART + 1, 1)
        if (c == "u") { code = hex(substr(s, RSTART + 2, 4)); s = substr(s, RSTART + 6); out = out utf8(code); continue }
        s = substr(s, RSTART + 2)
        if (c == "n") out = out "\\n"
        else if (c == "t") out = out "\\t"
        else if (c == "\\") out = out "\\\\"
        else if (c != "r" && c != "b" && c != "f") out = out c
    }
    return out s
}

function hex(digits,   i, n) {
    n = 0
    for (i = 1; i <= length(digits); i++) n = n * 16 + index("0123456789abcdef", tolower(substr(digits, i, 1))) - 1
    return n
}

function utf8(code) {
    if (code == 10) return "\\n"
    if (code == 92) return "\\\\"
    if (code < 128) return sprintf("%c", code)
    if (code < 2048) return sprintf("%c%c", 192 + int(code / 64), 128 + code % 64)
    if (code >= 55296 && code < 57344) return "?"
    return sprintf("%c%c%c", 224 + int(code / 4096), 128 + int(code / 64) % 64, 128 + code % 64)
}
