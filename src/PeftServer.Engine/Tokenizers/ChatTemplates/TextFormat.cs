using System.Globalization;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Python's two ways to put values into a text: <c>'%s' % x</c> and <c>'{}'.format(x)</c>.</summary>
internal static class TextFormat
{
    public static TextValue Percent(TextValue format, object? values, RenderState state) =>
        Percent(format, values is ListValue { IsTuple: true } tuple ? tuple.Items : [values], values as DictValue, state);

    public static TextValue Percent(TextValue format, IReadOnlyList<object?> values, DictValue? named, RenderState state)
    {
        var builder = new TextBuilder();
        var text = format.Text;
        var used = 0;
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] != '%')
            {
                builder.Append(format, i, 1);
                continue;
            }

            i++;
            object? value = null;
            var hasValue = false;
            if (i < text.Length && text[i] == '(')
            {
                var close = text.IndexOf(')', i);
                if (close < 0 || named is null || !named.TryGet(text[(i + 1)..close], out value))
                {
                    throw new TemplateException("format requires a mapping with the named key");
                }

                hasValue = true;
                i = close + 1;
            }

            var start = i;
            while (i < text.Length && text[i] is '-' or '+' or ' ' or '#' or '.' or (>= '0' and <= '9'))
            {
                i++;
            }

            if (i >= text.Length)
            {
                throw new TemplateException("incomplete format");
            }

            if (text[i] == '%')
            {
                builder.Append("%", Provenance.Own);
                continue;
            }

            if (!hasValue)
            {
                value = used < values.Count ? values[used++] : throw new TemplateException("not enough arguments for format string");
            }

            var flags = text[start..i];
            var spec = (flags.Contains('-', StringComparison.Ordinal) ? "<" : ">") + flags.Replace("-", "", StringComparison.Ordinal);
            builder.Append(Field(value, text[i] switch
            {
                's' or 'r' => spec,
                'd' or 'i' or 'u' => spec + "d",
                'f' or 'x' or 'X' or 'e' => spec + text[i],
                _ => throw new TemplateException($"unsupported format character '{text[i]}'"),
            }, text[i] == 'r', state));
        }

        return used < values.Count && named is null ? throw new TemplateException("not all arguments converted during string formatting") : builder.Finish();
    }

    public static TextValue Braces(TextValue format, CallArguments arguments, RenderState state)
    {
        var builder = new TextBuilder();
        var text = format.Text;
        var next = 0;
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] is not ('{' or '}'))
            {
                builder.Append(format, i, 1);
                continue;
            }

            if (i + 1 < text.Length && text[i + 1] == text[i])
            {
                builder.Append(format, i++, 1);
                continue;
            }

            var close = text[i] == '{' ? text.IndexOf('}', i) : -1;
            if (close < 0)
            {
                throw new TemplateException($"Single '{text[i]}' encountered in format string");
            }

            var field = text[(i + 1)..close];
            var colon = field.IndexOf(':', StringComparison.Ordinal);
            var (name, spec) = colon < 0 ? (field, "") : (field[..colon], field[(colon + 1)..]);
            var repr = name.EndsWith("!r", StringComparison.Ordinal);
            name = repr || name.EndsWith("!s", StringComparison.Ordinal) ? name[..^2] : name;
            builder.Append(Field(Argument(name, arguments, ref next), spec, repr, state));
            i = close;
        }

        return builder.Finish();
    }

    private static object? Argument(string name, CallArguments arguments, ref int next)
    {
        if (name.Length == 0)
        {
            name = next++.ToString(CultureInfo.InvariantCulture);
        }

        if (int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var index))
        {
            return index < arguments.Positional.Count
                ? arguments.Positional[index]
                : throw new TemplateException("Replacement index out of range for positional args tuple");
        }

        // "{x.y}" would reach into objects; Jinja's sandbox guards it, and no chat template has been seen to use it.
        return arguments.Named.TryGetValue(name, out var value) ? value : throw new TemplateException($"format: there is no argument '{name}'");
    }

    /// <summary>A value by Python's format specification: <c>[[fill]align][sign][0][width][,][.precision][type]</c>.</summary>
    private static TextValue Field(object? value, string spec, bool repr, RenderState state)
    {
        Operators.ThrowIfUndefined(value);
        var parsed = FormatSpec.Parse(spec);
        state.Text(parsed.Width);
        var text = repr ? new TextValue(PythonText.Repr(value), PythonText.MainOf(value)) : PythonText.Str(value);
        if (Operators.IsNumber(value) && !repr && (value is not bool || parsed.Type != '\0'))
        {
            text = TextValue.Own(parsed.Number(value!));
        }
        else if (parsed.Precision >= 0 && parsed.Precision < text.Length)
        {
            text = text.Slice(0, parsed.Precision);
        }

        var missing = parsed.Width - text.Length;
        if (missing <= 0)
        {
            return text;
        }

        var align = parsed.Align != '\0' ? parsed.Align : Operators.IsNumber(value) ? '>' : '<';
        var left = align switch { '<' => 0, '>' or '=' => missing, _ => missing / 2 };
        return TextValue.Own(new string(parsed.Fill, left)).Concat(text).Concat(TextValue.Own(new string(parsed.Fill, missing - left)));
    }

    private sealed record FormatSpec(char Fill, char Align, char Sign, int Width, bool Thousands, int Precision, char Type)
    {
        public static FormatSpec Parse(string spec)
        {
            var at = 0;
            var (fill, align) = (' ', '\0');
            if (spec.Length > 1 && spec[1] is '<' or '>' or '^' or '=')
            {
                (fill, align, at) = (spec[0], spec[1], 2);
            }
            else if (spec.Length > 0 && spec[0] is '<' or '>' or '^' or '=')
            {
                (align, at) = (spec[0], 1);
            }

            var sign = at < spec.Length && spec[at] is '+' or '-' or ' ' ? spec[at++] : '\0';
            if (at < spec.Length && spec[at] == '0')
            {
                fill = '0';
                at++;
            }

            var width = Number(spec, ref at, 0);
            var thousands = at < spec.Length && spec[at] == ',';
            at += thousands ? 1 : 0;
            var precision = -1;
            if (at < spec.Length && spec[at] == '.')
            {
                at++;
                precision = Number(spec, ref at, 0);
            }

            var type = at < spec.Length ? spec[at++] : '\0';
            return at == spec.Length && type is '\0' or 's' or 'd' or 'f' or 'x' or 'X' or 'e' or '%'
                ? new FormatSpec(fill, align, sign, width, thousands, precision, type)
                : throw new TemplateException($"Invalid format specifier '{spec}'");
        }

        public string Number(object value)
        {
            var text = (Type, value) switch
            {
                ('d', double) => throw new TemplateException("Unknown format code 'd' for object of type 'float'"),
                ('x', long n) => n.ToString("x", CultureInfo.InvariantCulture),
                ('X', long n) => n.ToString("X", CultureInfo.InvariantCulture),
                ('f', _) => Fixed(Operators.ToDouble(value)),
                ('%', _) => Fixed(Operators.ToDouble(value) * 100) + "%",
                ('e', _) => Operators.ToDouble(value).ToString($"0.{new string('0', Math.Min(Precision < 0 ? 6 : Precision, 60))}e+00", CultureInfo.InvariantCulture),
                (_, double d) when Precision >= 0 => d.ToString($"G{Math.Max(Math.Min(Precision, 60), 1)}", CultureInfo.InvariantCulture),
                (_, bool b) => b ? "1" : "0",
                (_, long n) when Thousands => n.ToString("#,0", CultureInfo.InvariantCulture),
                _ => PythonText.Str(value).Text,
            };
            return Sign is '+' or ' ' && text[0] != '-' ? Sign + text : text;
        }

        private string Fixed(double value) =>
            value.ToString((Thousands ? "N" : "F") + Math.Min(Precision < 0 ? 6 : Precision, 60).ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);

        private static int Number(string spec, ref int at, int orElse)
        {
            var start = at;
            while (at < spec.Length && char.IsAsciiDigit(spec[at]))
            {
                at++;
            }

            return at == start ? orElse
                : int.TryParse(spec.AsSpan(start, at - start), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number
                : throw new TemplateException($"Invalid format specifier '{spec}'");
        }
    }
}
