using System.Text;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Whose words a stretch of rendered text is.</summary>
/// <param name="Message">Index of the message whose content it is; <see cref="Template"/> or <see cref="Data"/> otherwise.</param>
/// <param name="Generated">It stands in a <c>{% generation %}</c> block.</param>
internal readonly record struct Provenance(int Message, bool Generated = false)
{
    /// <summary>The template's own text.</summary>
    public const int Template = -1;

    /// <summary>Given from outside, but no message's content: tools, documents, roles, template arguments.</summary>
    public const int Data = -2;

    public static readonly Provenance Own = new(Template);
}

/// <summary>A stretch up to <paramref name="End"/>, from the end of the stretch before.</summary>
internal readonly record struct TextRun(int End, Provenance Provenance);

/// <summary>
/// A string that knows whose words it is made of. The knowledge follows it through concatenation, slices, case changes and
/// the like, so that what a user wrote is never taken for what the template says.
/// </summary>
internal sealed class TextValue : IEquatable<TextValue>
{
    public static readonly TextValue Empty = new("", Provenance.Own);

    private readonly TextRun[]? _runs; // absent: all of _provenance
    private readonly Provenance _provenance;

    public TextValue(string text, Provenance provenance) => (Text, _provenance) = (text, provenance);

    private TextValue(string text, TextRun[] runs) => (Text, _runs) = (text, runs);

    public string Text { get; }

    public int Length => Text.Length;

    public IEnumerable<TextRun> Runs => _runs ?? (Length == 0 ? [] : [new TextRun(Length, _provenance)]);

    /// <summary>The one provenance of all of it, or of its first part that is not the template's.</summary>
    public Provenance Main => _runs is null ? _provenance
        : _runs.Select(r => r.Provenance).FirstOrDefault(p => p.Message != Provenance.Template, _runs.Length > 0 ? _runs[0].Provenance : Provenance.Own);

    public static TextValue Own(string text) => text.Length == 0 ? Empty : new(text, Provenance.Own);

    public TextValue Slice(int start, int length)
    {
        if (_runs is null)
        {
            return new TextValue(Text.Substring(start, length), _provenance);
        }

        var builder = new TextBuilder();
        builder.Append(this, start, length);
        return builder.Finish();
    }

    /// <summary>The same words changed by <paramref name="map"/>, stretch by stretch.</summary>
    public TextValue Map(Func<string, string> map)
    {
        if (_runs is null)
        {
            return new TextValue(map(Text), _provenance);
        }

        var builder = new TextBuilder();
        var start = 0;
        foreach (var run in _runs)
        {
            builder.Append(map(Text[start..run.End]), run.Provenance);
            start = run.End;
        }

        return builder.Finish();
    }

    public TextValue TrimStart(Func<char, bool> strip)
    {
        var start = 0;
        while (start < Length && strip(Text[start]))
        {
            start++;
        }

        return start == 0 ? this : Slice(start, Length - start);
    }

    public TextValue TrimEnd(Func<char, bool> strip)
    {
        var end = Length;
        while (end > 0 && strip(Text[end - 1]))
        {
            end--;
        }

        return end == Length ? this : Slice(0, end);
    }

    public TextValue Concat(TextValue other)
    {
        var builder = new TextBuilder();
        builder.Append(this);
        builder.Append(other);
        return builder.Finish();
    }

    public TextValue AsGenerated()
    {
        var builder = new TextBuilder();
        var start = 0;
        foreach (var run in Runs)
        {
            builder.Append(Text.AsSpan(start, run.End - start), run.Provenance with { Generated = true });
            start = run.End;
        }

        return builder.Finish();
    }

    public bool Equals(TextValue? other) => other is not null && Text == other.Text;

    public override bool Equals(object? obj) => Equals(obj as TextValue);

    public override int GetHashCode() => Text.GetHashCode(StringComparison.Ordinal);

    public override string ToString() => Text;

    internal static TextValue FromRuns(string text, List<TextRun> runs) => runs.Count switch
    {
        0 => Empty,
        1 => new TextValue(text, runs[0].Provenance),
        _ => new TextValue(text, [.. runs]),
    };
}

/// <summary>Puts texts together and keeps whose words they are.</summary>
internal sealed class TextBuilder
{
    private readonly StringBuilder _text = new();
    private readonly List<TextRun> _runs = [];

    public int Length => _text.Length;

    public void Append(TextValue value)
    {
        var start = 0;
        foreach (var run in value.Runs)
        {
            Append(value.Text.AsSpan(start, run.End - start), run.Provenance);
            start = run.End;
        }
    }

    public void Append(TextValue value, int from, int length)
    {
        var start = 0;
        var end = from + length;
        foreach (var run in value.Runs)
        {
            var first = Math.Max(start, from);
            var last = Math.Min(run.End, end);
            if (first < last)
            {
                Append(value.Text.AsSpan(first, last - first), run.Provenance);
            }

            start = run.End;
        }
    }

    public void Append(ReadOnlySpan<char> text, Provenance provenance)
    {
        if (text.IsEmpty)
        {
            return;
        }

        _text.Append(text);
        if (_runs.Count > 0 && _runs[^1].Provenance == provenance)
        {
            _runs[^1] = new TextRun(_text.Length, provenance);
        }
        else
        {
            _runs.Add(new TextRun(_text.Length, provenance));
        }
    }

    public TextValue Finish() => TextValue.FromRuns(_text.ToString(), _runs);
}
