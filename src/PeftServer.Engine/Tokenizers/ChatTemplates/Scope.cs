namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Names and what they stand for; a name that is not here is looked for outside.</summary>
internal sealed class Scope
{
    private readonly Scope? _outer;
    private Dictionary<string, object?>? _names;

    public Scope(RenderState state) => State = state;

    private Scope(Scope outer) => (_outer, State) = (outer, outer.State);

    public RenderState State { get; }

    public Scope Child() => new(this);

    public void Set(string name, object? value) => (_names ??= new(StringComparer.Ordinal))[name] = value;

    public bool TryGet(string name, out object? value)
    {
        for (var scope = this; scope is not null; scope = scope._outer)
        {
            if (scope._names is not null && scope._names.TryGetValue(name, out value))
            {
                return true;
            }
        }

        value = null;
        return false;
    }
}
