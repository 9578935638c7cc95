namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Python's arithmetic: whole numbers stay whole except under <c>/</c>, and remainders have the divisor's sign.</summary>
internal static class Arithmetic
{
    public static object Compute(string op, object left, object right) => left is double || right is double || op == "/"
        ? Floats(op, Operators.ToDouble(left), Operators.ToDouble(right))
        : left is long or bool && right is long or bool
            ? Integers(op, Operators.ToLong(left), Operators.ToLong(right))
            : throw new TemplateException("a whole number of the chat template goes beyond 64 bits");

    private static object Integers(string op, long a, long b) => op switch
    {
        "+" => Operators.Checked(() => checked(a + b)),
        "-" => Operators.Checked(() => checked(a - b)),
        "*" => Operators.Checked(() => checked(a * b)),
        "//" or "%" when b == 0 => throw new TemplateException("integer division or modulo by zero"),
        "//" => Operators.Checked(() => checked(a / b) - (a % b != 0 && a < 0 != b < 0 ? 1 : 0)),
        "%" => b == -1 ? 0L : a % b is var rest && rest != 0 && rest < 0 != b < 0 ? rest + b : rest,
        "**" => b < 0 ? Floats(op, a, b) : Operators.Checked(() => Power(a, b)),
        _ => throw new TemplateException($"unknown operator {op}"),
    };

    private static object Floats(string op, double a, double b) => op switch
    {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" or "//" or "%" when b == 0 => throw new TemplateException("division by zero"),
        "/" => a / b,
        "//" => Math.Floor(a / b),
        "%" => a - (Math.Floor(a / b) * b),
        "**" => Math.Pow(a, b),
        _ => throw new TemplateException($"unknown operator {op}"),
    };

    private static long Power(long value, long exponent)
    {
        if (value is 0 or 1 or -1)
        {
            return exponent == 0 || value == 1 ? 1 : value == 0 ? 0 : exponent % 2 == 0 ? 1 : -1;
        }

        var result = 1L;
        for (; exponent > 0; exponent--)
        {
            result = checked(result * value); // overflows within 63 rounds
        }

        return result;
    }
}
