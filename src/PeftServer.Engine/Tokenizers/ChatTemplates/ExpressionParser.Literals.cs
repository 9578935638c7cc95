using System.Globalization;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

internal sealed partial class ExpressionParser
{
    private Expression ParsePrimary()
    {
        var token = cursor.Current;
        switch (token.Kind)
        {
            case TokenKind.Name:
                cursor.Next();
                return token.Text switch
                {
                    "true" or "True" => new Literal(true),
                    "false" or "False" => new Literal(false),
                    "none" or "None" => new Literal(null),
                    var name => new NameExpression(name),
                };
            case TokenKind.String:
                var text = "";
                while (cursor.Current.Kind is TokenKind.String)
                {
                    text += cursor.Next().Text;
                }

                return new Literal(TextValue.Own(text));
            case TokenKind.Integer:
                return long.TryParse(token.Text.Replace("_", "", StringComparison.Ordinal), CultureInfo.InvariantCulture, out var number)
                    ? Take(number)
                    : throw cursor.Error($"the number {token.Text} is too large");
            case TokenKind.Float:
                return Take(double.Parse(token.Text.Replace("_", "", StringComparison.Ordinal), CultureInfo.InvariantCulture));
            case TokenKind.Operator when cursor.SkipOperator("("):
                var inner = ParseTuple(inBrackets: true);
                cursor.ExpectOperator(")");
                return inner;
            case TokenKind.Operator when cursor.SkipOperator("["):
                return ParseList();
            case TokenKind.Operator when cursor.SkipOperator("{"):
                return ParseDict();
            default:
                throw cursor.Error($"unexpected '{token.Text}'");
        }
    }

    private Literal Take(object value)
    {
        cursor.Next();
        return new Literal(value);
    }

    private ListExpression ParseList()
    {
        var items = new List<Expression>();
        while (!cursor.IsOperator("]"))
        {
            items.Add(Parse());
            if (!cursor.SkipOperator(","))
            {
                break;
            }
        }

        cursor.ExpectOperator("]");
        return new ListExpression(items, isTuple: false);
    }

    private DictExpression ParseDict()
    {
        var entries = new List<(Expression Key, Expression Value)>();
        while (!cursor.IsOperator("}"))
        {
            var key = Parse();
            cursor.ExpectOperator(":");
            entries.Add((key, Parse()));
            if (!cursor.SkipOperator(","))
            {
                break;
            }
        }

        cursor.ExpectOperator("}");
        return new DictExpression(entries);
    }
}
