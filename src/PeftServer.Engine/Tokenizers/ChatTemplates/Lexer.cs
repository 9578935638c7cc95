using System.Globalization;
using System.Text;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

internal enum TokenKind
{
    Data,
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name,
    Integer,
    Float,
    String,
    Operator,
    End,
}

internal readonly record struct TemplateToken(TokenKind Kind, string Text, int Line);

/// <summary>
/// Cuts a template into tokens, with Jinja's rules of white space as transformers sets them: <c>trim_blocks</c> and
/// <c>lstrip_blocks</c> on, one newline at the end dropped.
/// </summary>
internal sealed class Lexer
{
    private static readonly string[] Operators =
        ["//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ",", ":", "|", "(", ")", "[", "]", "{", "}"];

    private readonly string _source;
    private readonly List<TemplateToken> _tokens = [];
    private int _at;
    private int _line = 1;
    private bool _lineStarting = true;

    private Lexer(string source) => _source = source;

    public static List<TemplateToken> Tokenize(string source)
    {
        source = source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        var lexer = new Lexer(source.EndsWith('\n') ? source[..^1] : source);
        lexer.Run();
        return lexer._tokens;
    }

    private void Run()
    {
        while (_at < _source.Length)
        {
            var tag = NextTag();
            if (tag < 0)
            {
                AddData(_source[_at..]);
                break;
            }

            var kind = _source[tag + 1];
            var sign = tag + 2 < _source.Length ? _source[tag + 2] : '\0';
            var text = _source[_at..tag];
            AddData(StripBefore(text, sign, isPrint: kind == '{'));
            Advance(tag);
            switch (kind)
            {
                case '#':
                    ReadComment();
                    break;
                case '{':
                    ReadTag(TokenKind.PrintBegin, TokenKind.PrintEnd, "}}", sign is '-' or '+');
                    break;
                case '%' when RawLength() is > 0 and var length:
                    ReadRaw(length);
                    break;
                default:
                    ReadTag(TokenKind.BlockBegin, TokenKind.BlockEnd, "%}", sign is '-' or '+');
                    break;
            }
        }

        Add(TokenKind.End, "");
    }

    private int NextTag()
    {
        for (var i = _source.IndexOf('{', _at); i >= 0; i = _source.IndexOf('{', i + 1))
        {
            if (i + 1 < _source.Length && _source[i + 1] is '{' or '%' or '#')
            {
                return i;
            }
        }

        return -1;
    }

    private string StripBefore(string text, char sign, bool isPrint)
    {
        if (sign == '-')
        {
            return text.TrimEnd();
        }

        if (sign == '+' || isPrint)
        {
            return text;
        }

        var lineStart = text.LastIndexOf('\n') + 1;
        return (lineStart > 0 || _lineStarting) && string.IsNullOrWhiteSpace(text[lineStart..]) ? text[..lineStart] : text;
    }

    private void ReadComment()
    {
        var end = _source.IndexOf("#}", _at + 2, StringComparison.Ordinal);
        if (end < 0)
        {
            throw Error("a comment is not closed by #}");
        }

        EndTag(end, trimsNewline: true);
    }

    /// <summary>Length of <c>{% raw %}</c> at the reading position, 0 where there is none.</summary>
    private int RawLength()
    {
        var at = SkipSpace(_at + 2 + (_at + 2 < _source.Length && _source[_at + 2] is '-' or '+' ? 1 : 0));
        if (!_source.AsSpan(at).StartsWith("raw"))
        {
            return 0;
        }

        at = SkipSpace(at + 3);
        if (_source.AsSpan(at).StartsWith("-%}"))
        {
            return SkipSpace(at + 3) - _at;
        }

        return _source.AsSpan(at).StartsWith("%}") ? at + 2 - _at : 0;
    }

    private void ReadRaw(int length)
    {
        Advance(_at + length);
        for (var i = _source.IndexOf("{%", _at, StringComparison.Ordinal); i >= 0; i = _source.IndexOf("{%", i + 2, StringComparison.Ordinal))
        {
            var sign = i + 2 < _source.Length ? _source[i + 2] : '\0';
            var name = SkipSpace(i + 2 + (sign is '-' or '+' ? 1 : 0));
            if (!_source.AsSpan(name).StartsWith("endraw"))
            {
                continue;
            }

            var end = SkipSpace(name + 6);
            var hasSign = end < _source.Length && _source[end] is '-' or '+';
            if (!_source.AsSpan(end + (hasSign ? 1 : 0)).StartsWith("%}"))
            {
                continue;
            }

            AddData(StripBefore(_source[_at..i], sign, isPrint: false));
            Advance(end + (hasSign ? 1 : 0));
            EndTag(_at, trimsNewline: true);
            return;
        }

        throw Error("{% raw %} is not closed by {% endraw %}");
    }

    private void ReadTag(TokenKind begin, TokenKind end, string closing, bool hasSign)
    {
        Add(begin, "");
        Advance(_at + (hasSign ? 3 : 2));
        var open = 0; // brackets: }} inside a dictionary closes the dictionary first
        while (true)
        {
            Advance(SkipSpace(_at));
            if (_at >= _source.Length)
            {
                throw Error($"a tag is not closed by {closing}");
            }

            var rest = _source.AsSpan(_at);
            if (open == 0 && (rest.StartsWith(closing) || (rest[0] is '-' or '+' && rest[1..].StartsWith(closing) && !(rest[0] == '+' && closing == "}}"))))
            {
                Add(end, "");
                EndTag(_at + (rest[0] is '-' or '+' ? 1 : 0), trimsNewline: closing == "%}");
                return;
            }

            open += ReadToken(rest) switch { "(" or "[" or "{" => 1, ")" or "]" or "}" => -1, _ => 0 };
            open = Math.Max(open, 0);
        }
    }

    /// <summary>Goes past a closing mark at <paramref name="mark"/> and the white space that its sign takes along.</summary>
    private void EndTag(int mark, bool trimsNewline)
    {
        var sign = mark > 0 ? _source[mark - 1] : '\0';
        var end = mark + 2;
        if (sign == '-')
        {
            end = SkipSpace(end);
        }
        else if (sign != '+' && trimsNewline && end < _source.Length && _source[end] == '\n')
        {
            end++;
        }

        Advance(end);
        _lineStarting = _source[end - 1] == '\n';
    }

    private string ReadToken(ReadOnlySpan<char> rest)
    {
        if (rest[0] is '\'' or '"')
        {
            ReadString(rest[0]);
            return "";
        }

        if (rest[0] == '_' || char.IsLetter(rest[0]))
        {
            var length = 1;
            while (length < rest.Length && (rest[length] == '_' || char.IsLetterOrDigit(rest[length])))
            {
                length++;
            }

            Take(TokenKind.Name, length);
            return "";
        }

        if (char.IsAsciiDigit(rest[0]))
        {
            ReadNumber(rest);
            return "";
        }

        foreach (var op in Operators)
        {
            if (rest.StartsWith(op))
            {
                Take(TokenKind.Operator, op.Length);
                return op;
            }
        }

        throw Error($"unexpected character '{rest[0]}'");
    }

    private void ReadNumber(ReadOnlySpan<char> rest)
    {
        var length = Digits(rest, 0);
        var isFloat = false;
        if (length + 1 < rest.Length && rest[length] == '.' && char.IsAsciiDigit(rest[length + 1]))
        {
            length = Digits(rest, length + 1);
            isFloat = true;
        }

        if (length + 1 < rest.Length && rest[length] is 'e' or 'E')
        {
            var exponent = length + (rest[length + 1] is '+' or '-' ? 2 : 1);
            if (exponent < rest.Length && char.IsAsciiDigit(rest[exponent]))
            {
                length = Digits(rest, exponent);
                isFloat = true;
            }
        }

        Take(isFloat ? TokenKind.Float : TokenKind.Integer, length);
    }

    private static int Digits(ReadOnlySpan<char> text, int at)
    {
        while (at < text.Length && (char.IsAsciiDigit(text[at]) || text[at] == '_'))
        {
            at++;
        }

        return at;
    }

    private void ReadString(char quote)
    {
        var text = new StringBuilder();
        for (var i = _at + 1; i < _source.Length; i++)
        {
            if (_source[i] == quote)
            {
                Add(TokenKind.String, text.ToString());
                Advance(i + 1);
                return;
            }

            if (_source[i] == '\\' && i + 1 < _source.Length)
            {
                i += AppendEscape(_source.AsSpan(i + 1), text);
            }
            else
            {
                text.Append(_source[i]);
            }
        }

        throw Error("a string is not closed");
    }

    /// <summary>Appends what a backslash and the characters after it mean in Python; returns how many of those it used.</summary>
    private int AppendEscape(ReadOnlySpan<char> rest, StringBuilder text)
    {
        const string Simple = "nrtabfv\\'\"0";
        const string Meaning = "\n\r\t\a\b\f\v\\'\"\0";
        var digits = rest[0] switch { 'x' => 2, 'u' => 4, 'U' => 8, _ => 0 };
        if (digits > 0)
        {
            if (rest.Length <= digits || !int.TryParse(rest.Slice(1, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code) || code is < 0 or > 0x10FFFF)
            {
                throw Error($"broken \\{rest[0]} escape in a string");
            }

            text.Append(code > 0xFFFF ? char.ConvertFromUtf32(code) : ((char)code).ToString());
            return digits + 1;
        }

        var simple = Simple.IndexOf(rest[0], StringComparison.Ordinal);
        if (simple >= 0)
        {
            text.Append(Meaning[simple]);
        }
        else if (rest[0] != '\n')
        {
            text.Append('\\').Append(rest[0]);
        }

        return 1;
    }

    private int SkipSpace(int at)
    {
        while (at < _source.Length && char.IsWhiteSpace(_source[at]))
        {
            at++;
        }

        return at;
    }

    private void AddData(string text)
    {
        if (text.Length > 0)
        {
            Add(TokenKind.Data, text);
        }
    }

    private void Take(TokenKind kind, int length)
    {
        Add(kind, _source.Substring(_at, length));
        Advance(_at + length);
    }

    private void Add(TokenKind kind, string text) => _tokens.Add(new TemplateToken(kind, text, _line));

    private void Advance(int to)
    {
        _line += _source.AsSpan(_at, to - _at).Count('\n');
        _at = to;
    }

    private TemplateException Error(string message) => new($"Line {_line} of the chat template: {message}.") { Line = _line };
}
