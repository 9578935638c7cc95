using System.Text.Json;
using PeftServer.Core.Http;

namespace PeftServer.Api.Inference;

/// <summary>Finds the <c>model</c> of a request that is passed on as it came, without building the document.</summary>
internal static class ModelField
{
    /// <summary>Throws <see cref="ApiErrorException"/> when the body is no JSON object with one <c>model</c> that is a text.</summary>
    public static string Read(ReadOnlySpan<byte> utf8)
    {
        try
        {
            var model = Find(utf8) ?? throw Refuse("you must provide a model parameter", "missing_required_parameter");
            return model.Contains('\0', StringComparison.Ordinal) ? throw Refuse("'model' holds the character U+0000.", "invalid_string") : model;
        }
        catch (JsonException e)
        {
            throw RequestBody.NoJson(e);
        }
        catch (InvalidOperationException)
        {
            throw Refuse("'model' is no valid text.", "invalid_string"); // half a surrogate pair, broken UTF-8
        }
    }

    private static string? Find(ReadOnlySpan<byte> utf8)
    {
        var reader = new Utf8JsonReader(utf8, new JsonReaderOptions { MaxDepth = 64 });
        string? model = null;
        if (!reader.Read() || reader.TokenType is not JsonTokenType.StartObject)
        {
            throw new ApiErrorException(ApiError.BadRequest("The body must be a JSON object.", code: "invalid_type"));
        }

        while (reader.Read())
        {
            if (reader.CurrentDepth != 1 || reader.TokenType is not JsonTokenType.PropertyName || !reader.ValueTextEquals("model"))
            {
                continue;
            }

            if (model is not null)
            {
                throw Refuse("'model' is there twice. Keep one.", "named_twice"); // the host might read the other one
            }

            reader.Read();
            model = reader.TokenType is JsonTokenType.String ? reader.GetString() : throw Refuse("'model' must be a string.", "invalid_type");
        }

        return model;
    }

    private static ApiErrorException Refuse(string message, string code) => new(ApiError.BadRequest(message, "model", code));
}
