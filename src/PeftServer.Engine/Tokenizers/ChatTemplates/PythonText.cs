using System.Globalization;
using System.Numerics;
using System.Text;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Values as Python prints them.</summary>
internal static class PythonText
{
    /// <summary><c>str(value)</c>, with whose words they are.</summary>
    public static TextValue Str(object? value) => value switch
    {
        TextValue text => text,
        ListValue or DictValue => new TextValue(Repr(value), MainOf(value)),
        _ => TextValue.Own(Scalar(value)),
    };

    public static string Repr(object? value)
    {
        RenderState.CheckStack();
        return value switch
        {
            TextValue text => Quote(text.Text),
            ListValue { IsTuple: true, Items.Count: 1 } one => $"({Repr(one.Items[0])},)",
            ListValue { IsTuple: true } tuple => $"({string.Join(", ", tuple.Items.Select(Repr))})",
            ListValue list => $"[{string.Join(", ", list.Items.Select(Repr))}]",
            DictValue dict => $"{{{string.Join(", ", dict.Entries.Select(e => $"{Repr(e.Key)}: {Repr(e.Value)}"))}}}",
            _ => Scalar(value),
        };
    }

    public static string TypeName(object? value) => value switch
    {
        null => "NoneType",
        bool => "bool",
        long or BigInteger => "int",
        double => "float",
        TextValue => "str",
        ListValue { IsTuple: true } => "tuple",
        ListValue => "list",
        DictValue => "dict",
        UndefinedValue => "Undefined",
        NamespaceValue => "Namespace",
        MacroValue => "Macro",
        LoopValue => "LoopContext",
        _ => "function",
    };

    /// <summary><c>repr</c> of a float: the shortest digits that read back the same, in Python's layout.</summary>
    public static string Float(double value)
    {
        if (double.IsNaN(value) || double.IsInfinity(value))
        {
            return double.IsNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
        }

        if (value == 0)
        {
            return double.IsNegative(value) ? "-0.0" : "0.0";
        }

        var scientific = value.ToString("E16", CultureInfo.InvariantCulture);
        var exponent = int.Parse(scientific.AsSpan(scientific.IndexOf('E', StringComparison.Ordinal) + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        var shortest = value.ToString("R", CultureInfo.InvariantCulture);
        var digits = string.Concat(shortest.TakeWhile(c => c is not ('E' or 'e')).Where(char.IsAsciiDigit)).TrimStart('0').TrimEnd('0');
        var sign = value < 0 ? "-" : "";
        if (exponent is < -4 or >= 16)
        {
            var mantissa = digits.Length > 1 ? $"{digits[0]}.{digits[1..]}" : digits;
            return $"{sign}{mantissa}e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}";
        }

        if (exponent < 0)
        {
            return $"{sign}0.{new string('0', -exponent - 1)}{digits}";
        }

        digits = digits.PadRight(exponent + 1, '0');
        return $"{sign}{digits[..(exponent + 1)]}.{(digits.Length > exponent + 1 ? digits[(exponent + 1)..] : "0")}";
    }

    /// <summary>The first provenance in <paramref name="value"/> that is not the template's.</summary>
    public static Provenance MainOf(object? value)
    {
        RenderState.CheckStack();
        var parts = value switch
        {
            TextValue text => [text.Main],
            ListValue list => list.Items.Select(MainOf),
            DictValue dict => dict.Entries.SelectMany(e => new[] { MainOf(e.Key), MainOf(e.Value) }),
            _ => Enumerable.Empty<Provenance>(),
        };
        return parts.FirstOrDefault(p => p.Message != Provenance.Template, Provenance.Own);
    }

    private static string Scalar(object? value) => value switch
    {
        null => "None",
        true => "True",
        false => "False",
        long number => number.ToString(CultureInfo.InvariantCulture),
        BigInteger number => number.ToString(CultureInfo.InvariantCulture),
        double number => Float(number),
        UndefinedValue => "",
        NamespaceValue space => $"<Namespace {{{string.Join(", ", space.Attributes.Select(a => $"'{a.Key}': {Repr(a.Value)}"))}}}>",
        _ => $"<{TypeName(value)}>",
    };

    private static string Quote(string text)
    {
        var quote = text.Contains('\'', StringComparison.Ordinal) && !text.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        var builder = new StringBuilder().Append(quote);
        foreach (var rune in text.EnumerateRunes())
        {
            _ = rune.Value switch
            {
                '\\' => builder.Append(@"\\"),
                '\n' => builder.Append(@"\n"),
                '\r' => builder.Append(@"\r"),
                '\t' => builder.Append(@"\t"),
                var c when c == quote => builder.Append('\\').Append(quote),
                < 0x20 or (>= 0x7F and < 0xA0) or 0xAD => builder.Append(CultureInfo.InvariantCulture, $"\\x{rune.Value:x2}"),
                _ when IsPrintable(rune) => builder.Append(rune.ToString()),
                <= 0xFFFF => builder.Append(CultureInfo.InvariantCulture, $"\\u{rune.Value:x4}"),
                _ => builder.Append(CultureInfo.InvariantCulture, $"\\U{rune.Value:x8}"),
            };
        }

        return builder.Append(quote).ToString();
    }

    private static bool IsPrintable(Rune rune) => rune.Value == ' ' || Rune.GetUnicodeCategory(rune) is not (
        UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse
        or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator);
}
