%% Runs the cases of cases.py with OTP's own supervisor and writes what it answers; the words are those of
%% crates/plimsoll/tests/otp/recorded.rs. Every reading is taken when nothing is under way any more, and every end has
%% happened before the next step, so that the answers do not depend on time.
-module(oracle).
-behaviour(supervisor).
-export([main/2, init/1, start_child/1, start_child/2, log/2]).

main(In, Out) ->
    logger:remove_handler(default),
    logger:add_handler(reports, ?MODULE, #{}),
    {ok, Text} = file:read_file(In),
    Lines = [string:lexemes(L, " ") || L <- string:split(binary_to_list(Text), "\n", all), L =/= ""],
    {ok, File} = file:open(Out, [write]),
    ets:new(t, [named_table, public, ordered_set]),
    Bad = [Case || Case <- cases(Lines), run_alone(Case, File) =/= ok],
    file:close(File),
    [io:format("not recorded: ~s~n", [lists:join(" ", Head)]) || [Head | _] <- Bad],
    halt(case Bad of [] -> 0; _ -> 1 end).

cases([]) -> [];
cases([Head | Rest]) ->
    {Case, Others} = lists:splitwith(fun([Word | _]) -> Word =/= "case" end, Rest),
    [[Head | Case] | cases(Others)].

%% In a process of its own, which may be killed.
run_alone(Case, File) ->
    {Pid, Monitor} = spawn_monitor(fun() -> process_flag(trap_exit, true), run(Case, File) end),
    receive {'DOWN', Monitor, _, _, normal} -> ok; {'DOWN', Monitor, _, _, Reason} -> Reason
    after 20000 -> exit(Pid, kill), hung
    end.

%% The supervisor's own reports of children that did not end as they were asked to.
log(#{msg := {report, #{label := {supervisor, shutdown_error}, report := Report}}}, _) ->
    Child = proplists:get_value(offender, Report),
    ets:insert(t, {{report, unique()}, proplists:get_value(id, Child), reason(proplists:get_value(reason, Report)),
                   proplists:get_value(nb_children, Child, 1)}),
    ok;
log(_, _) -> ok.

reason(normal) -> "normal";
reason(shutdown) -> "shutdown";
reason({shutdown, _}) -> "term";
reason(killed) -> "killed";
reason(crash) -> "crash".

unique() -> erlang:unique_integer([monotonic]).
note(What) -> ets:insert(t, {{event, unique()}, What}).
simple() -> ets:lookup_element(t, simple, 2).

init(FlagsAndSpecs) -> {ok, FlagsAndSpecs}.

run([["case", _, Strategy, Intensity, Auto] = Head | Rest], File) ->
    ets:delete_all_objects(t),
    ets:insert(t, {simple, Strategy =:= "simple"}),
    {Given, Steps} = lists:splitwith(fun([K | _]) -> lists:member(K, ["child", "spec", "starts"]) end, Rest),
    [ets:insert(t, {{starts, Id}, Outcomes}) || ["starts", Id | Outcomes] <- Given],
    [ets:insert(t, {{spec, Id}, spec([Id | Words])}) || ["spec", Id | Words] <- Given],
    Flags = #{strategy => strategy(Strategy), intensity => list_to_integer(Intensity), period => 100000,
              auto_shutdown => list_to_atom(Auto)},
    Boot = [spec([Id | Words]) || ["child", Id | Words] <- Given],
    [io:format(File, "~s~n", [lists:join(" ", Line)]) || Line <- [Head | Given]],
    case supervisor:start_link(?MODULE, {Flags, Boot}) of
        {ok, Sup} ->
            ets:insert(t, {sup, Sup}),
            rest(Sup),
            show(File, "up", Sup),
            [do(Step, Sup, File) || Step <- Steps],
            exit(Sup, kill),
            [exit(Pid, kill) || {_, Pid} <- ets:match_object(t, {{pid, '_'}, '_'})];
        {error, {shutdown, {failed_to_start_child, Id, _}}} ->
            show(File, "failed " ++ Id, none)
    end.

strategy("simple") -> simple_one_for_one;
strategy(Word) -> list_to_atom(Word).

spec([Id, Restart, Significant, Stop, Shutdown]) ->
    ets:insert(t, {{stop, Id}, Stop}),
    #{id => Id, start => {?MODULE, start_child, case simple() of true -> []; false -> [Id] end},
      restart => list_to_atom(Restart), significant => Significant =:= "significant",
      shutdown => case Shutdown of
                      "brutal" -> brutal_kill;
                      "infinity" -> infinity;
                      Ms -> list_to_integer(Ms)
                  end}.

do(Step, Sup, File) ->
    io:format(File, "~s~n", [lists:join(" ", Step)]),
    ets:match_delete(t, {{report, '_'}, '_', '_', '_'}),
    Answer = step(Step, Sup),
    rest(Sup),
    show(File, Answer, Sup).

step(["end", Id, Reason], _) -> finish(Id, Reason);
step(["stop"], Sup) ->
    Monitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Monitor, _, _, _} -> ok end,
    Reports = [{Id, Reason, N} || {{report, _}, Id, Reason, N} <- ets:tab2list(t)],
    "report" ++ lists:append(case simple() of
        false -> [" " ++ Id ++ "=" ++ Reason || {Id, Reason, _} <- Reports];
        true -> lists:sort([" " ++ Reason ++ "=" ++ integer_to_list(N) || {_, Reason, N} <- Reports])
    end);
step(["count"], Sup) ->
    alive(fun() -> lists:join(" ", [integer_to_list(N) || {_, N} <- supervisor:count_children(Sup)]) end);
step([Op, Id], Sup) -> alive(fun() -> operate(Op, Id, Sup, simple()) end).

alive(Ask) -> try Ask() catch exit:_ -> "gone" end.

operate("start", Id, Sup, false) -> started(supervisor:start_child(Sup, ets:lookup_element(t, {spec, Id}, 2)));
operate("restart", Id, Sup, false) -> started(supervisor:restart_child(Sup, Id));
operate("delete", Id, Sup, false) -> told(supervisor:delete_child(Sup, Id));
operate("terminate", Id, Sup, false) -> told(supervisor:terminate_child(Sup, Id));
operate("start", Id, Sup, true) ->
    case [Pid || {_, Pid} <- ets:lookup(t, {pid, Id}), is_process_alive(Pid)] of
        [] -> started(supervisor:start_child(Sup, [Id]));
        _ -> "none"
    end;
operate("terminate", Id, Sup, true) ->
    case ets:lookup(t, {pid, Id}) of
        [{_, Pid}] -> told(supervisor:terminate_child(Sup, Pid));
        [] -> "none"
    end;
operate(_, _, _, true) -> "none".

started({ok, undefined}) -> "ignored";
started({ok, _}) -> "started";
started({error, already_present}) -> "present";
started({error, {already_started, _}}) -> "already";
started({error, E}) when E =:= running; E =:= restarting; E =:= not_found -> atom_to_list(E);
started({error, _}) -> "failed".

told(ok) -> "ok";
told({error, E}) -> atom_to_list(E).

%% Waits until the supervisor has dealt with what it knows of.
rest(Sup) -> timer:sleep(3), rest(Sup, 3).
rest(_, 0) -> ok;
rest(Sup, Turns) ->
    case catch supervisor:which_children(Sup) of
        Children when is_list(Children) ->
            rest(Sup, case lists:keymember(restarting, 2, Children) of true -> 3; false -> Turns - 1 end);
        _ -> ok
    end.

show(File, Answer, Sup) ->
    Events = [What || {{event, _}, What} <- ets:tab2list(t)],
    ets:match_delete(t, {{event, '_'}, '_'}),
    io:format(File, "> ~s | ~s | ~s~n", [Answer, lists:join(" ", Events), tree(Sup)]).

tree(none) -> "";
tree(Sup) ->
    case catch supervisor:which_children(Sup) of
        Children when is_list(Children) ->
            Named = [{Pid, Id} || {{pid, Id}, Pid} <- ets:match_object(t, {{pid, '_'}, '_'})],
            lists:join(" ", case simple() of
                false -> [Id ++ state(Pid) || {Id, Pid, _, _} <- lists:reverse(Children)];
                true -> lists:sort([proplists:get_value(Pid, Named, "") ++ state(Pid) || {_, Pid, _, _} <- Children])
            end);
        _ ->
            receive {'EXIT', Sup, Reason} -> put(over, Reason) after 0 -> ok end,
            "over " ++ reason(get(over))
    end.

state(undefined) -> "-";
state(restarting) -> "~";
state(_) -> "+".

start_child(Id) -> start_child(Id, once_more).
start_child(Id, _) ->
    Outcome = case ets:lookup(t, {starts, Id}) of
        [{Key, [First | Rest]}] -> ets:insert(t, {Key, Rest}), First;
        _ -> "ok"
    end,
    case string:split(Outcome, "/") of
        ["ok"] ->
            note("+" ++ Id),
            Stop = ets:lookup_element(t, {stop, case simple() of true -> "t"; false -> Id end}, 2),
            Parent = self(),
            Pid = spawn_link(fun() ->
                process_flag(trap_exit, true),
                Parent ! {up, self()},
                member(Id, Parent, Stop)
            end),
            receive {up, Pid} -> ok end,
            ets:insert(t, {{pid, Id}, Pid}),
            {ok, Pid};
        ["ignore"] -> note("~" ++ Id), ignore;
        ["fail" | Meanwhile] -> note("!" ++ Id), [meanwhile(What) || What <- Meanwhile], {error, told}
    end.

member(Id, Parent, Stop) ->
    receive
        {finish, "normal"} -> exit(normal);
        {finish, "shutdown"} -> exit(shutdown);
        {finish, "term"} -> exit({shutdown, told});
        {finish, "crash"} -> exit(crash);
        {'EXIT', Parent, shutdown} ->
            note("-" ++ Id),
            case string:split(Stop, "/") of
                ["obey"] -> exit(shutdown);
                ["crash"] -> exit(crash);
                ["linger"] -> receive never -> ok end;
                ["obey", What] -> meanwhile(What), exit(shutdown)
            end;
        _ -> member(Id, Parent, Stop)
    end.

meanwhile(What) ->
    case string:split(What, "=") of
        [Op, Id] when Op =:= "restart"; Op =:= "delete"; Op =:= "start" -> ask(Op, Id);
        [Id, Reason] -> finish(Id, Reason)
    end.

%% Asks for an operation, and goes on when the question stands in the supervisor's queue.
ask(Op, Id) ->
    Sup = case ets:lookup(t, sup) of [{_, Pid}] -> Pid; [] -> self() end,
    {_, Before} = process_info(Sup, message_queue_len),
    spawn(fun() ->
        Answer = alive(fun() -> operate(Op, Id, Sup, simple()) end),
        note(Op ++ ":" ++ Id ++ "=" ++ Answer)
    end),
    longer(Sup, Before, 1000).

longer(_, _, 0) -> ok;
longer(Sup, Before, Tries) ->
    case process_info(Sup, message_queue_len) of
        {_, Length} when Length > Before -> ok;
        _ -> timer:sleep(1), longer(Sup, Before, Tries - 1)
    end.

finish(Id, Reason) ->
    case [Pid || {_, Pid} <- ets:lookup(t, {pid, Id}), is_process_alive(Pid)] of
        [] -> "none";
        [Pid] ->
            Monitor = monitor(process, Pid),
            case Reason of "kill" -> exit(Pid, kill); _ -> Pid ! {finish, Reason} end,
            receive {'DOWN', Monitor, _, _, _} -> "ended" after 3000 -> exit(stuck) end
    end.
