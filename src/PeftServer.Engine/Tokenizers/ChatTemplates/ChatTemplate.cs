using System.Text.Json;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>
/// A model's chat template: the Jinja that transformers runs (https://jinja.palletsprojects.com), without any reach outside
/// its data and with limits on what it may use. Renders to text that knows whose words it is made of. May be used from
/// several threads at once.
/// </summary>
public sealed class ChatTemplate
{
    private readonly IReadOnlyList<Statement> _body;
    private readonly bool _hasGenerationBlocks;

    private ChatTemplate(string source, IReadOnlyList<Statement> body, bool hasGenerationBlocks) =>
        (Source, _body, _hasGenerationBlocks) = (source, body, hasGenerationBlocks);

    /// <summary>The template as it was written.</summary>
    public string Source { get; }

    /// <summary>Throws <see cref="TemplateException"/> naming the line.</summary>
    public static ChatTemplate Parse(string source)
    {
        var (body, hasGenerationBlocks) = TemplateParser.Parse(source);
        return new ChatTemplate(source, body, hasGenerationBlocks);
    }

    /// <summary>Renders <paramref name="chat"/>; throws <see cref="TemplateException"/> where the template does.</summary>
    /// <param name="chat">Messages, tools and the like.</param>
    /// <param name="addGenerationPrompt">End with what makes the model answer.</param>
    /// <param name="variables">bos_token and the like, by name.</param>
    /// <param name="clock">What <c>strftime_now</c> reads.</param>
    public RenderedChat Render(
        Conversation chat, bool addGenerationPrompt = false, IReadOnlyDictionary<string, string>? variables = null, TimeProvider? clock = null)
    {
        var state = new RenderState(clock ?? TimeProvider.System);
        var scope = new Scope(state);
        Globals.AddTo(scope);
        foreach (var (name, text) in variables ?? new Dictionary<string, string>())
        {
            scope.Set(name, TextValue.Own(text));
        }

        scope.Set("messages", new ListValue([.. chat.Messages.Select((m, i) => m.ValueKind is JsonValueKind.Object
            ? JsonValues.Message(m, i)
            : throw new TemplateException($"messages[{i}] is not an object."))]));
        var data = new Provenance(Provenance.Data);
        scope.Set("tools", chat.Tools is { } tools ? JsonValues.From(tools, data) : null);
        scope.Set("documents", chat.Documents is { } documents ? JsonValues.From(documents, data) : null);
        scope.Set("add_generation_prompt", addGenerationPrompt);
        foreach (var (name, value) in chat.TemplateArguments ?? new Dictionary<string, JsonElement>())
        {
            scope.Set(name, JsonValues.From(value, data));
        }

        Statement.Run(_body, scope.Child());
        return new RenderedChat(state.Finish(), _hasGenerationBlocks);
    }
}
