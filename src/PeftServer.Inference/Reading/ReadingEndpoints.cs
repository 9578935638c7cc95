using System.Runtime.InteropServices;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core.Http;
using PeftServer.Engine.Models;
using PeftServer.Engine.Reading;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Inference.Reading;

/// <summary>Models that read: classes of texts and of their words, scores of pairs, answers in texts, vectors.</summary>
internal static class ReadingEndpoints
{
    private const string TooLong = "Shorten it, or send 'truncate_prompt_tokens': -1 to have its end cut off.";

    extension(IEndpointRouteBuilder routes)
    {
        public void MapReading()
        {
            routes.MapPost("/v1/classify", ClassifyAsync);
            routes.MapPost("/v1/score", ScoreAsync);
            routes.MapPost("/v1/token_classification", TagAsync);
            routes.MapPost("/v1/question_answering", AnswerAsync);
            routes.MapPost("/v1/embeddings", EmbedAsync);
            routes.MapPost("/v1/pooling", PoolAsync);
        }
    }

    private static Task<IResult> ClassifyAsync(JsonBody<ClassifyRequest> body, ReadingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, async (reader, request) =>
        {
            var texts = Texts(reader, request);
            var activation = request.UseActivation is false ? ScoreActivation.None : reader.Limits.Activation;
            var readings = await reader.ReadAsync(texts, request.TaskId ?? 0, context.RequestAborted);
            return services.Answer("classify", request, texts, [.. readings.Select((reading, i) =>
            {
                var scores = reading.Rows[0];
                return new ClassifiedText(i, reader.Limits.Labels[Array.IndexOf(scores, scores.Max())], activation.Of(scores), scores is [var only] ? only : null);
            })]);
        });

    private static IReadOnlyList<TextInput> Texts(Reader reader, ClassifyRequest request)
    {
        var inputs = new TextInputs("input", reader.Served.Tokenizer, reader.Limits.Vocabulary, reader.Limits.MaxLength)
        {
            TakesPairs = true,
            AddsSpecialTokens = request.AddSpecialTokens ?? true,
            TruncateTo = request.TruncatePromptTokens,
            Remedy = TooLong,
        };
        if (request.Input is { } input)
        {
            return request.Messages is null ? inputs.Read(input) : throw ReadingServices.Fault("messages", "Send 'input' or 'messages', not both.");
        }

        var messages = request.Messages ?? throw ReadingServices.Fault("input", "'input' is missing.");
        var chat = reader.Served.Chat ?? throw ReadingServices.Fault("messages", "The model has no chat template. Send the text in 'input'.");
        try
        {
            var ids = chat.EncodePrompt(new Conversation { Messages = messages }, request.AddGenerationPrompt ?? false);
            return inputs.Read(JsonSerializer.SerializeToElement(ids));
        }
        catch (TemplateException e)
        {
            throw ReadingServices.Fault("messages", $"The model's chat template does not take these messages: {e.Message}");
        }
    }

    private static Task<IResult> ScoreAsync(JsonBody<ScoreRequest> body, ReadingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, async (reader, request) =>
        {
            var (firsts, seconds) = ((request.Text1 ?? request.Queries)?.Values, (request.Text2 ?? request.Documents)?.Values);
            if (reader.Limits.Labels.Count != 1)
            {
                throw ReadingServices.Fault("model", $"'{request.Model}' tells {reader.Limits.Labels.Count} classes apart, so it has no single score. Use POST /v1/classify.");
            }

            if (firsts is not { Count: > 0 } || seconds is not { Count: > 0 } || (firsts.Count != 1 && firsts.Count != seconds.Count))
            {
                throw ReadingServices.Fault("text_1", "Send 'text_1' as one text, or as many as 'text_2' has.");
            }

            var inputs = new TextInputs("text_2", reader.Served.Tokenizer, reader.Limits.Vocabulary, reader.Limits.MaxLength) { TruncateTo = request.TruncatePromptTokens, Remedy = TooLong };
            var texts = seconds.Select((second, i) => inputs.Encode(firsts[firsts.Count == 1 ? 0 : i], second, $"text_2[{i}]")).ToList();
            var activation = request.UseActivation is false ? ScoreActivation.None : reader.Limits.Activation;
            var readings = await reader.ReadAsync(texts, request.TaskId ?? 0, context.RequestAborted);
            return services.Answer("score", request, texts, [.. readings.Select((reading, i) => new ScoredPair(i, activation.Of(reading.Rows[0])[0]))]);
        });

    private static Task<IResult> TagAsync(JsonBody<TagRequest> body, ReadingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, async (reader, request) =>
        {
            var inputs = new TextInputs("input", reader.Served.Tokenizer, reader.Limits.Vocabulary, reader.Limits.MaxLength) { TruncateTo = request.TruncatePromptTokens, Remedy = TooLong };
            var texts = request.Input.Values.Select((text, i) => inputs.Encode(text, null, $"input[{i}]")).ToList();
            var readings = await reader.ReadAsync(texts, request.TaskId ?? 0, context.RequestAborted);
            var strategy = request.AggregationStrategy ?? AggregationStrategy.First;
            return services.Answer("tags", request, texts, [.. request.Input.Values.Select((text, i) => new TaggedText(i,
                [.. TagGroups.Of(text, texts[i].Encoding!, readings[i], reader.Limits.Labels, strategy, request.IgnoreLabels ?? ["O"]).Select(group => new TaggedSpan
                {
                    EntityGroup = group.Token is null ? group.Label : null,
                    Entity = group.Token is null ? null : group.Label,
                    Index = group.Token,
                    Score = group.Score,
                    Word = group.Word,
                    Start = group.Start,
                    End = group.End,
                })]))]);
        });

    private static Task<IResult> AnswerAsync(JsonBody<AnswerRequest> body, ReadingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, async (reader, request) =>
        {
            var length = Math.Min(request.TruncatePromptTokens is > 0 and var given ? given : int.MaxValue, reader.Limits.MaxLength);
            var finder = new AnswerFinder(reader.Served.Tokenizer, request.Question, request.Context, length, Math.Min(request.DocStride ?? 128, length / 4));
            var texts = finder.Windows.Select(window => new TextInput(window.Ids, window.TypeIds)).ToList();
            if (texts.Count == 0)
            {
                throw ReadingServices.Fault("question", $"The question alone fills the {length} tokens that the model reads. Shorten it.", "context_length_exceeded");
            }

            var readings = await reader.ReadAsync(texts, request.TaskId ?? 0, context.RequestAborted);
            var answers = finder.Best(readings, request.TopK ?? 1, request.MaxAnswerLen ?? 15, request.HandleImpossibleAnswer ?? false);
            return services.Answer("answer", request, texts, [.. answers.Select(answer => new FoundAnswer(answer.Text, answer.Score, answer.Start, answer.End))]);
        });

    private static Task<IResult> EmbedAsync(JsonBody<EmbeddingRequest> body, ReadingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, async (reader, request) =>
        {
            var texts = new TextInputs("input", reader.Served.Tokenizer, reader.Limits.Vocabulary, reader.Limits.MaxLength) { TruncateTo = request.TruncatePromptTokens, Remedy = TooLong }
                .Read(request.Input);
            var readings = await reader.ReadAsync(texts, request.TaskId ?? 0, context.RequestAborted);
            if (request.Dimensions > readings[0].Rows[0].Length)
            {
                throw ReadingServices.Fault("dimensions", $"'dimensions' is {request.Dimensions}; the model's vectors have {readings[0].Rows[0].Length}.");
            }

            return services.Answer("embd", request, texts, [.. readings.Select((reading, i) => new Embedding(i, Written(Shortened(reading.Rows[0], request.Dimensions), request.EncodingFormat)))]);
        });

    private static Task<IResult> PoolAsync(JsonBody<PoolingRequest> body, ReadingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, async (reader, request) =>
        {
            var (task, usual) = reader.Served.Head switch
            {
                ModelHead.SequenceClassification => ("classify", reader.Limits.Activation),
                ModelHead.TokenClassification => ("token_classify", ScoreActivation.Softmax),
                _ => ("embed", ScoreActivation.None),
            };
            if (request.Task is { } asked && asked != task)
            {
                throw ReadingServices.Fault("task", $"'{request.Model}' does the task {task}. Use that, or leave 'task' out.");
            }

            var texts = Texts(reader, request);
            var readings = await reader.ReadAsync(texts, request.TaskId ?? 0, context.RequestAborted);
            var activation = request.UseActivation is false ? ScoreActivation.None : usual;
            return services.Answer("pool", request, texts, [.. readings.Select((reading, i) =>
            {
                float[][] rows = [.. reading.Rows.Select(row => Array.ConvertAll(activation.Of(row), value => (float)value))];
                return new Pooled(i, request.EncodingFormat == "base64" ? Written([.. rows.SelectMany(row => row)], "base64") : task == "token_classify" ? rows : rows[0]);
            })]);
        });

    private static float[] Shortened(float[] vector, int? dimensions)
    {
        if (dimensions is not { } count)
        {
            return vector;
        }

        var kept = vector[..count];
        var length = (float)Math.Sqrt(kept.Sum(value => (double)value * value));
        return length == 0 ? kept : [.. kept.Select(value => value / length)];
    }

    private static object Written(float[] vector, string? format) => format == "base64" ? Convert.ToBase64String(MemoryMarshal.AsBytes(vector.AsSpan())) : vector;
}
