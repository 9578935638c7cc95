using System.Collections.Frozen;
using System.Text;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Python's methods of <c>str</c>.</summary>
internal static class TextMethods
{
    private delegate object? Method(TextValue text, CallArguments arguments, RenderState state);

    private static readonly FrozenDictionary<string, Method> Methods = new Dictionary<string, Method>
    {
        ["strip"] = (t, a, _) => t.TrimStart(Strip(a)).TrimEnd(Strip(a)),
        ["lstrip"] = (t, a, _) => t.TrimStart(Strip(a)),
        ["rstrip"] = (t, a, _) => t.TrimEnd(Strip(a)),
        ["upper"] = (t, _, _) => t.Map(s => s.ToUpperInvariant()),
        ["lower"] = (t, _, _) => t.Map(s => s.ToLowerInvariant()),
        ["casefold"] = (t, _, _) => t.Map(s => s.ToLowerInvariant()),
        ["title"] = (t, _, _) => Cased(t, Title(t.Text)),
        ["capitalize"] = (t, _, _) => Cased(t, Capitalize(t.Text)),
        ["swapcase"] = (t, _, _) => t.Map(s => string.Concat(s.Select(c => char.IsUpper(c) ? char.ToLowerInvariant(c) : char.ToUpperInvariant(c)))),
        ["startswith"] = (t, a, _) => Affixes(a).Any(p => t.Text.StartsWith(p, StringComparison.Ordinal)),
        ["endswith"] = (t, a, _) => Affixes(a).Any(p => t.Text.EndsWith(p, StringComparison.Ordinal)),
        ["removeprefix"] = (t, a, _) => Affix(a) is var p && t.Text.StartsWith(p, StringComparison.Ordinal) ? t.Slice(p.Length, t.Length - p.Length) : t,
        ["removesuffix"] = (t, a, _) => Affix(a) is { Length: > 0 } p && t.Text.EndsWith(p, StringComparison.Ordinal) ? t.Slice(0, t.Length - p.Length) : t,
        ["split"] = (t, a, s) => TextSplitter.Split(t, a, fromRight: false, s),
        ["rsplit"] = (t, a, s) => TextSplitter.Split(t, a, fromRight: true, s),
        ["splitlines"] = (t, a, s) => TextSplitter.Lines(t, Operators.IsTrue(a.Get(0, "keepends", false)), s),
        ["partition"] = (t, a, s) => TextSplitter.Partition(t, Affix(a), fromRight: false),
        ["rpartition"] = (t, a, s) => TextSplitter.Partition(t, Affix(a), fromRight: true),
        ["replace"] = (t, a, s) => Replace(t, Argument(a, 0, "old"), Argument(a, 1, "new"), a.Integer(2, "count", -1), s),
        ["join"] = (t, a, s) => Join(t, Operators.Iterate(a.Require(0, "iterable"), s), s, strict: true),
        ["find"] = (t, a, _) => Find(t, a, last: false),
        ["rfind"] = (t, a, _) => Find(t, a, last: true),
        ["index"] = (t, a, _) => Find(t, a, last: false) is >= 0 and var at ? at : throw new TemplateException("substring not found"),
        ["rindex"] = (t, a, _) => Find(t, a, last: true) is >= 0 and var at ? at : throw new TemplateException("substring not found"),
        ["count"] = (t, a, s) => Count(t, Affix(a), s),
        ["format"] = (t, a, s) => TextFormat.Braces(t, a, s),
        ["zfill"] = (t, a, s) => Pad(t, a.Integer(0, "width", 0), "0", s, left: true),
        ["ljust"] = (t, a, s) => Pad(t, a.Integer(0, "width", 0), a.Text(1, "fillchar", " ").Text, s, left: false),
        ["rjust"] = (t, a, s) => Pad(t, a.Integer(0, "width", 0), a.Text(1, "fillchar", " ").Text, s, left: true),
        ["center"] = (t, a, s) => Center(t, a.Integer(0, "width", 0), a.Text(1, "fillchar", " ").Text, s),
        ["isdigit"] = (t, _, _) => t.Length > 0 && t.Text.All(char.IsDigit),
        ["isdecimal"] = (t, _, _) => t.Length > 0 && t.Text.All(char.IsDigit),
        ["isnumeric"] = (t, _, _) => t.Length > 0 && t.Text.All(char.IsNumber),
        ["isalpha"] = (t, _, _) => t.Length > 0 && t.Text.All(char.IsLetter),
        ["isalnum"] = (t, _, _) => t.Length > 0 && t.Text.All(c => char.IsLetter(c) || char.IsNumber(c)),
        ["isspace"] = (t, _, _) => t.Length > 0 && t.Text.All(PythonSpace.Is),
        ["isupper"] = (t, _, _) => t.Text.Any(char.IsUpper) && !t.Text.Any(char.IsLower),
        ["islower"] = (t, _, _) => t.Text.Any(char.IsLower) && !t.Text.Any(char.IsUpper),
        ["istitle"] = (t, _, _) => t.Text.Any(char.IsLetter) && Title(t.Text) == t.Text,
    }.ToFrozenDictionary(StringComparer.Ordinal);

    public static FunctionValue? Find(TextValue text, string name) => Methods.TryGetValue(name, out var method)
        ? new FunctionValue(name, (arguments, state) =>
        {
            state.Text(text.Length);
            return method(text, arguments, state);
        })
        : null;

    public static TextValue Replace(TextValue text, TextValue old, TextValue replacement, long count, RenderState state)
    {
        var builder = new TextBuilder();
        var done = 0;
        for (var at = 0; count != 0 && at <= text.Length; count--)
        {
            var found = text.Text.IndexOf(old.Text, at, StringComparison.Ordinal);
            if (found < 0)
            {
                break;
            }

            state.Step();
            state.Text(builder.Length + (long)replacement.Length);
            builder.Append(text, done, found - done);
            builder.Append(replacement);
            done = found + old.Length;
            at = old.Length > 0 ? done : found + 1;
        }

        builder.Append(text, done, text.Length - done);
        return builder.Finish();
    }

    public static TextValue Join(TextValue separator, IEnumerable<object?> items, RenderState state, bool strict)
    {
        var builder = new TextBuilder();
        var first = true;
        foreach (var item in items)
        {
            if (strict && item is not TextValue)
            {
                throw new TemplateException($"sequence item: expected str instance, {PythonText.TypeName(item)} found");
            }

            if (!first)
            {
                builder.Append(separator);
            }

            first = false;
            builder.Append(PythonText.Str(item));
            state.Step(1 + (builder.Length > RenderState.MaxText ? RenderState.MaxSteps : 0));
        }

        state.Text(builder.Length);
        return builder.Finish();
    }

    public static TextValue Center(TextValue text, long width, string fill, RenderState state)
    {
        var missing = Math.Max(width - text.Length, 0);
        var left = (missing / 2) + (missing & width & 1);
        return Pad(Pad(text, text.Length + left, fill, state, left: true), width, fill, state, left: false);
    }

    /// <summary>A change of case that looks at the whole text, laid over the runs of the old one.</summary>
    public static TextValue Cased(TextValue text, string changed)
    {
        if (changed.Length != text.Length)
        {
            return new TextValue(changed, text.Main);
        }

        var builder = new TextBuilder();
        var start = 0;
        foreach (var run in text.Runs)
        {
            builder.Append(changed.AsSpan(start, run.End - start), run.Provenance);
            start = run.End;
        }

        return builder.Finish();
    }

    public static string Capitalize(string text) =>
        text.Length == 0 ? text : string.Concat(text[..1].ToUpperInvariant(), text[1..].ToLowerInvariant());

    private static string Title(string text)
    {
        var result = new StringBuilder(text.Length);
        for (var i = 0; i < text.Length; i++)
        {
            result.Append(i > 0 && char.IsLetter(text[i - 1]) ? char.ToLowerInvariant(text[i]) : char.ToUpperInvariant(text[i]));
        }

        return result.ToString();
    }

    private static TextValue Pad(TextValue text, long width, string fill, RenderState state, bool left)
    {
        if (fill.Length != 1)
        {
            throw new TemplateException("The fill character must be exactly one character long");
        }

        state.Text(width);
        var padding = TextValue.Own(new string(fill[0], (int)Math.Max(width - text.Length, 0)));
        return left ? padding.Concat(text) : text.Concat(padding);
    }

    private static long Find(TextValue text, CallArguments arguments, bool last)
    {
        var part = Affix(arguments);
        var from = (int)Math.Clamp(arguments.Integer(1, "start", 0), 0, text.Length);
        var at = last ? text.Text.LastIndexOf(part, StringComparison.Ordinal) : text.Text.IndexOf(part, from, StringComparison.Ordinal);
        if (at < from)
        {
            return -1;
        }

        return text.Text.AsSpan(0, at).ToString().EnumerateRunes().Count(); // counted in code points, as Python does
    }

    private static long Count(TextValue text, string part, RenderState state)
    {
        if (part.Length == 0)
        {
            return text.Text.EnumerateRunes().Count() + 1L;
        }

        var count = 0L;
        for (var at = text.Text.IndexOf(part, StringComparison.Ordinal); at >= 0; at = text.Text.IndexOf(part, at + part.Length, StringComparison.Ordinal))
        {
            state.Step();
            count++;
        }

        return count;
    }

    private static Func<char, bool> Strip(CallArguments arguments) => arguments.Get(0, "chars") switch
    {
        null => PythonSpace.Is,
        TextValue chars => c => chars.Text.Contains(c, StringComparison.Ordinal),
        var other => throw new TemplateException($"strip arg must be None or str, not {PythonText.TypeName(other)}"),
    };

    private static IEnumerable<string> Affixes(CallArguments arguments) => arguments.Require(0, "prefix") is ListValue { IsTuple: true } tuple
        ? tuple.Items.Select(i => i is TextValue text ? text.Text : throw new TemplateException("a tuple of texts is needed"))
        : [Affix(arguments)];

    private static string Affix(CallArguments arguments) => Argument(arguments, 0, "text").Text;

    private static TextValue Argument(CallArguments arguments, int index, string name) => arguments.Require(index, name) switch
    {
        TextValue text => text,
        UndefinedValue undefined => throw undefined.Error(),
        var other => throw new TemplateException($"a text is needed, not {PythonText.TypeName(other)}"),
    };
}

/// <summary>What Python takes for white space.</summary>
internal static class PythonSpace
{
    public static bool Is(char c) => char.IsWhiteSpace(c) || c is >= '\x1c' and <= '\x1f';
}
