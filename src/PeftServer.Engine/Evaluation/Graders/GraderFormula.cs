using System.Globalization;

namespace PeftServer.Engine.Evaluation.Graders;

/// <summary>A formula over names: numbers, + − * / ^, parentheses, min, max, abs, floor, ceil, exp, sqrt, log.</summary>
internal sealed class GraderFormula
{
    private const int MaxDepth = 64;

    private static readonly Dictionary<string, Func<double[], double>> Functions = new()
    {
        ["min"] = values => values.Min(),
        ["max"] = values => values.Max(),
        ["abs"] = values => Math.Abs(values[0]),
        ["floor"] = values => Math.Floor(values[0]),
        ["ceil"] = values => Math.Ceiling(values[0]),
        ["exp"] = values => Math.Exp(values[0]),
        ["sqrt"] = values => Math.Sqrt(values[0]),
        ["log"] = values => Math.Log(values[0]),
    };

    private readonly string _text;
    private readonly HashSet<string> _names = [];
    private readonly Func<Func<string, double>, double> _value;
    private int _at;
    private int _depth;

    private GraderFormula(string text)
    {
        _text = text;
        _value = Sum();
        Expect(_at == _text.Length, "there is something behind its end");
    }

    /// <summary>The graders it names.</summary>
    public IReadOnlySet<string> Names => _names;

    /// <summary>Reads a formula. Throws <see cref="FormatException"/> saying where it is wrong.</summary>
    public static GraderFormula Parse(string text) => new(text);

    /// <summary>Its value, given those of its names.</summary>
    public double Value(Func<string, double> of) => _value(of);

    private Func<Func<string, double>, double> Sum()
    {
        var left = Product();
        while (Take('+', '-') is { } sign)
        {
            var (first, second) = (left, Product());
            left = sign == '+' ? of => first(of) + second(of) : of => first(of) - second(of);
        }

        return left;
    }

    private Func<Func<string, double>, double> Product()
    {
        var left = Power();
        while (Take('*', '/') is { } sign)
        {
            var (first, second) = (left, Power());
            left = sign == '*' ? of => first(of) * second(of) : of => first(of) / second(of);
        }

        return left;
    }

    private Func<Func<string, double>, double> Power()
    {
        if (Take('-') is not null)
        {
            var negated = Power();
            return of => -negated(of);
        }

        var left = Atom();
        if (Take('^') is null)
        {
            return left;
        }

        var right = Power();
        return of => Math.Pow(left(of), right(of));
    }

    private Func<Func<string, double>, double> Atom()
    {
        Expect(++_depth <= MaxDepth, "it is nested too deeply");
        try
        {
            if (Take('(') is not null)
            {
                var inner = Sum();
                Expect(Take(')') is not null, "a ')' is missing");
                return inner;
            }

            var word = Word();
            if (word.Length > 0 && (char.IsAsciiDigit(word[0]) || word[0] == '.'))
            {
                Expect(double.TryParse(word, NumberStyles.Float, CultureInfo.InvariantCulture, out var number), $"'{word}' is no number");
                return _ => number;
            }

            Expect(word.Length > 0, "a number or a grader's name is missing");
            return Functions.TryGetValue(word, out var function) && Take('(') is not null ? Call(function) : Named(word);
        }
        finally
        {
            _depth--;
        }
    }

    private Func<Func<string, double>, double> Named(string name)
    {
        _names.Add(name);
        return of => of(name);
    }

    private Func<Func<string, double>, double> Call(Func<double[], double> function)
    {
        var arguments = new List<Func<Func<string, double>, double>> { Sum() };
        while (Take(',') is not null)
        {
            arguments.Add(Sum());
        }

        Expect(Take(')') is not null, "a ')' is missing");
        return of => function([.. arguments.Select(argument => argument(of))]);
    }

    private string Word()
    {
        SkipSpace();
        var start = _at;
        while (_at < _text.Length && (char.IsLetterOrDigit(_text[_at]) || _text[_at] is '_' or '.'))
        {
            _at++;
        }

        return _text[start.._at];
    }

    private char? Take(params ReadOnlySpan<char> wanted)
    {
        SkipSpace();
        return _at < _text.Length && wanted.Contains(_text[_at]) ? _text[_at++] : null;
    }

    private void SkipSpace()
    {
        while (_at < _text.Length && char.IsWhiteSpace(_text[_at]))
        {
            _at++;
        }
    }

    private void Expect(bool holds, string otherwise)
    {
        if (!holds)
        {
            throw new FormatException($"{otherwise}, at character {_at + 1} of '{_text}'.");
        }
    }
}
